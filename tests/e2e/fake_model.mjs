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
// separate (words of the content in chunks of their own), pause_ms between chunks, models (their names: any
// other is answered with 404 and no_model(name)), call_pieces (a call's name first, its arguments in pieces),
// always_role (each delta says who speaks), reasoning (the field that thinking comes in), nulls (fields that are
// there and null). vllm and ollama below put together what those servers do.
export async function startFake(answer, habits = {}) {
    const fake = { requests: [], answer, habits, sockets: new Set() };
    const server = http.createServer(async (request, response) => {
        let text = '';
        for await (const piece of request) text += piece;
        if (request.url === '/health' || request.url === '/v1/models') {
            response.setHeader('content-type', 'application/json');
            return response.end(JSON.stringify({ object: 'list', data: (fake.habits.models ?? ['fake']).map((id) => ({ id })) }));
        }
        const body = JSON.parse(text);
        fake.requests.push(body);
        if (fake.habits.models && !fake.habits.models.includes(body.model))
            return fail(response, 404, fake.habits.no_model(body.model));
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

// As vLLM 0.9 to 0.11 streams (vllm/entrypoints/openai/serving_chat.py).
export const vllm = {
    models: ['Qwen/Qwen3-32B'], call_pieces: true, nulls: true, reasoning: 'reasoning_content',
    no_model: (name) => ({ error: { message: `The model \`${name}\` does not exist.`, type: 'NotFoundError', param: null, code: 404 } }),
};
// As Ollama streams under /v1 (openai/openai.go): whole calls, a role in each delta, thinking as "reasoning".
export const ollama = {
    models: ['qwen3:32b'], always_role: true, reasoning: 'reasoning',
    no_model: (name) => ({ error: { message: `model "${name}" not found, try pulling it first`, type: 'api_error', param: null, code: null } }),
};

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
        choices: [{
            ...(habits.index === false ? {} : { index: 0 }), finish_reason: finish,
            delta: habits.always_role ? { role: 'assistant', content: '', ...delta } : delta,
            ...(habits.nulls ? { logprobs: null, ...(finish ? { stop_reason: null } : {}) } : {}),
        }],
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
    if (habits.reasoning) send(chunk({ [habits.reasoning]: 'I think so.' }));
    const words = habits.separate ? (what.content ?? '').match(/\S+\s*/g) ?? [] : [what.content ?? ''];
    for (const word of words) {
        if (word) send(chunk({ content: word }));
        if (habits.pause_ms) await pause(habits.pause_ms);
    }
    const calls = what.calls ?? (what.call ? [what.call] : []);
    calls.forEach(([name, args], index) => {
        const text = JSON.stringify(args), pieces = habits.call_pieces ? ['', ...text.match(/.{1,7}/gs)] : [habits.parsed_arguments ? args : text];
        pieces.forEach((piece, i) => send(chunk({
            tool_calls: [{
                ...(habits.index === false ? {} : { index }),
                ...(i === 0 ? { id: `call_${fake.requests.length}_${index}`, type: 'function' } : {}),
                function: { ...(i === 0 ? { name } : {}), arguments: piece },
            }],
        })));
    });
    send(chunk({}, calls.length > 0 && !habits.always_stop ? 'tool_calls' : 'stop'));
    if (habits.usage !== false)
        send({ ...chunk({}), choices: [], usage: { prompt_tokens: 1000, completion_tokens: 12, total_tokens: 1012, ...(habits.nulls ? { prompt_tokens_details: null } : {}) } });
    if (habits.done !== false) send('[DONE]');
    response.end();
}
