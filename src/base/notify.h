// Tells the service manager how a service is: sd_notify's protocol (systemd's sd_notify(3)) without its
// library, one datagram a message.
#pragma once

#include <stdbool.h>

// Sends "READY=1", "STATUS=...", ... to the socket named by NOTIFY_SOCKET: a path, or "@name" for an
// abstract one. NULL or "" does nothing. False: nobody could be told, which never stops a service.
bool notify_send(const char *socket_name, const char *text);
