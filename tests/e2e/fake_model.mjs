// A server that speaks the chat API of others: what it answers is scripted, how it speaks is a habit.
// Not a model: it lets a test decide what the agent is told to do.
import http from 'node:http';
import { once } from 'node:events';

// answer(request) with request = {body, task, results, n} returns one of
//   {content} | {call: [name, arguments]} | {calls: [...]}   an answer
//   {status, body, headers}                                  an HTTP error
//   {hang: 'queue' | 'prefill' | 'generation'}               silence from there on
//   {cut: 'head' | 'stream'}                                 the connection breaks
// habits: usage, done, index (all true by default), progress (false), reject (fields answered with 400),
// separate (words of the content in chunks of their own), pause_ms between chunks.
export async function startFake(answer, habits = {}) {
    const fake = { requests: [], answer, habits, sockets: new Set() };
    const server = http.createServer(async (request, response) => {
        let text = '';
        for await (const piece of request) text += piece;
        if (request.url === '/health' || request.url === '/v1/models') {
            response.setHeader('content-type', 'application/json');
            return response.end(JSON.stringify({ object: 'list', data: [{ id: 'fake' }] }));
        }
        const body = JSON.parse(text);
        fake.requests.push(body);
        const rejected = (fake.habits.reject ?? []).find((name) => name in body);
        if (rejected)
            return fail(response, 400, { error: { message: `Unrecognized request argument supplied: ${rejected}`, type: 'invalid_request_error' } });
        const last = body.messages.findLastIndex((m) => m.role === 'user');
        const what = await fake.answer({
            body, n: fake.requests.length,
            task: body.messages[last].content,
            results: body.messages.slice(last).filter((m) => m.role === 'tool').map((m) => m.content),
        });
        await reply(response, what, fake.habits, fake);
    });
    server.on('connection', (socket) => {
        socket.unref();
        fake.sockets.add(socket);
        socket.on('close', () => fake.sockets.delete(socket));
    });
    fake.listen = async (port = 0) => {
        server.listen(port, '127.0.0.1');
        await once(server, 'listening');
        server.unref(); // a test that failed must not hang
        fake.port = server.address().port;
        fake.url = `http://127.0.0.1:${fake.port}`;
    };
    fake.stop = () => new Promise((resolve) => {
        server.close(resolve);
        for (const socket of fake.sockets) socket.destroy();
    });
    await fake.listen(habits.port);
    return fake;
}

function fail(response, status, body, headers = {}) {
    response.writeHead(status, { 'content-type': 'application/json', ...headers });
    response.end(typeof body === 'string' ? body : JSON.stringify(body ?? { error: { message: 'scripted' } }));
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function reply(response, what, habits, fake) {
    if (what.status) return fail(response, what.status, what.body, what.headers);
    if (what.cut === 'head') return response.socket.destroy();
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    const send = (data) => response.write(`data: ${typeof data === 'string' ? data : JSON.stringify(data)}\n\n`);
    const chunk = (delta, finish = null) => ({
        id: 'c', object: 'chat.completion.chunk', created: 1, model: 'fake',
        choices: [{ ...(habits.index === false ? {} : { index: 0 }), delta, finish_reason: finish }],
    });
    if (what.hang === 'queue') return response.flushHeaders();
    if (habits.progress || what.hang === 'prefill')
        send({ ...chunk({}), prompt_progress: { total: 1000, cache: 100, processed: 550, time_ms: 1500 } });
    if (what.hang === 'prefill') return;
    send(chunk({ role: 'assistant', content: habits.null_content ? null : '' }));
    if (what.hang === 'generation') return send(chunk({ content: 'half of ' }));
    if (what.cut === 'stream') {
        send(chunk({ content: 'half of ' }));
        await pause(50);
        return response.socket.destroy();
    }
    const words = habits.separate ? (what.content ?? '').match(/\S+\s*/g) ?? [] : [what.content ?? ''];
    for (const word of words) {
        if (word) send(chunk({ content: word }));
        if (habits.pause_ms) await pause(habits.pause_ms);
    }
    const calls = what.calls ?? (what.call ? [what.call] : []);
    calls.forEach(([name, args], index) => send(chunk({
        tool_calls: [{
            ...(habits.index === false ? {} : { index }), id: `call_${fake.requests.length}_${index}`, type: 'function',
            function: { name, arguments: habits.parsed_arguments ? args : JSON.stringify(args) },
        }],
    })));
    send(chunk({}, calls.length > 0 && !habits.always_stop ? 'tool_calls' : 'stop'));
    if (habits.usage !== false)
        send({ ...chunk({}), choices: [], usage: { prompt_tokens: 1000, completion_tokens: 12, total_tokens: 1012 } });
    if (habits.done !== false) send('[DONE]');
    response.end();
}
