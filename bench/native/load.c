/* load PORT CONNECTIONS SECONDS MODEL KEY json|stream|hold
 *
 * Keeps CONNECTIONS busy with a chat request of about 1 KB each, for SECONDS, and prints one line of JSON. `stream`
 * reads streams whose content is the time of sending (see upstream.c); `hold` opens every stream, waits, and says
 * how many are still open. */
#include "net.h"

enum { INPUT = 16 * 1024, EVENTS = 512, SAMPLES = 4000000 };

typedef struct {
    int fd, used, first;
    long begun;
    char input[INPUT + 1];
} Client;

typedef struct {
    double *values;
    long count;
} Samples;

static Samples whole, first_chunk, lag;
static long requests, errors, streams;
static int port, poll_fd;
static char request[4096];
static int request_length;

static void keep(Samples *samples, double value) {
    if (!samples->values)
        samples->values = malloc(sizeof(double) * SAMPLES);
    if (samples->count < SAMPLES)
        samples->values[samples->count++] = value;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double quantile(Samples *samples, double q) {
    if (!samples->count)
        return 0;
    qsort(samples->values, (size_t)samples->count, sizeof(double), ascending);
    return samples->values[(long)(q * (double)(samples->count - 1))];
}

static void make_request(const char *model, const char *key, int stream) {
    char text[900], body[2048];
    for (int i = 0; i < (int)sizeof text - 1; i++)
        text[i] = i % 6 == 5 ? ' ' : (char)('a' + i % 23);
    text[sizeof text - 1] = 0;
    int length = snprintf(body, sizeof body,
                          "{\"model\":\"%s\",\"messages\":[{\"role\":\"system\",\"content\":\"Be brief.\"},{\"role\":\"user\","
                          "\"content\":\"%s\"}],\"temperature\":0.7%s}",
                          model, text, stream ? ",\"stream\":true,\"stream_options\":{\"include_usage\":true}" : "");
    request_length = snprintf(request, sizeof request,
                              "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:%d\r\nauthorization: Bearer %s\r\n"
                              "content-type: application/json\r\naccept: */*\r\nuser-agent: bench\r\ncontent-length: %d\r\n\r\n%s",
                              port, key, length, body);
}

static void ask(Client *client) {
    client->used = 0;
    client->first = 1;
    client->begun = now_ns();
    if (send(client->fd, request, (size_t)request_length, MSG_NOSIGNAL) != request_length)
        errors++;
}

static void open_client(Client *client) {
    struct sockaddr_in address = loopback(port);
    client->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (client->fd < 0 || connect(client->fd, (struct sockaddr *)&address, sizeof address))
        die("connect");
    set_nodelay(client->fd);
    epoll_ctl(poll_fd, EPOLL_CTL_ADD, client->fd, &(struct epoll_event){.events = EPOLLIN, .data.ptr = client});
}

static void again(Client *client, int failed) {
    if (failed) {
        errors++;
        close(client->fd);
        open_client(client);
    }
    ask(client);
}

static void read_json(Client *client) {
    char *end = strstr(client->input, "\r\n\r\n"), *field = strcasestr(client->input, "content-length:");
    if (!end || !field || client->used < (int)(end - client->input) + 4 + atoi(field + 15))
        return;
    int failed = strncmp(client->input + 9, "200", 3) != 0;
    if (!failed) {
        requests++;
        keep(&whole, (double)(now_ns() - client->begun) / 1000);
    }
    again(client, failed);
}

static void read_stream(Client *client) {
    static const char mark[] = "\"content\":\"";
    long now = now_ns();
    char *at = client->input;
    if (client->first) {
        if (!strstr(at, "\r\n\r\n"))
            return;
        if (strncmp(at + 9, "200", 3)) {
            again(client, 1);
            return;
        }
    }
    for (char *found; (found = strstr(at, mark)); at = found) {
        char *close_quote = strchr(found += sizeof mark - 1, '"');
        if (!close_quote)
            break;
        long sent = atol(found);
        if (sent > 0) {
            streams++;
            keep(&lag, (double)(now - sent) / 1000);
            if (client->first)
                keep(&first_chunk, (double)(now - client->begun) / 1000);
            client->first = 0;
        }
    }
    char *done = strstr(at, "[DONE]");
    if (done && strstr(done, "0\r\n\r\n")) {
        requests++;
        keep(&whole, (double)(now - client->begun) / 1000);
        ask(client);
        return;
    }
    if (client->first)
        return; /* the head is still needed */
    client->used -= (int)(at - client->input);
    memmove(client->input, at, (size_t)client->used + 1);
    if (client->used > INPUT / 2) {
        memmove(client->input, client->input + client->used - 64, 65);
        client->used = 64;
    }
}

static void run(double seconds, int stream) {
    struct epoll_event events[EVENTS];
    for (long end = now_ns() + (long)(seconds * 1e9); now_ns() < end;) {
        int ready = epoll_wait(poll_fd, events, EVENTS, 20);
        for (int i = 0; i < ready; i++) {
            Client *client = events[i].data.ptr;
            ssize_t got = recv(client->fd, client->input + client->used, (size_t)(INPUT - client->used), 0);
            if (got <= 0) {
                again(client, 1);
                continue;
            }
            client->used += (int)got;
            client->input[client->used] = 0;
            if (stream)
                read_stream(client);
            else
                read_json(client);
        }
    }
}

int main(int argc, char **argv) {
    if (argc != 7)
        return fprintf(stderr, "usage: load PORT CONNECTIONS SECONDS MODEL KEY json|stream|hold\n"), 2;
    raise_open_files();
    port = atoi(argv[1]);
    int connections = atoi(argv[2]), stream = strcmp(argv[6], "json") != 0, hold = !strcmp(argv[6], "hold");
    Client *clients = calloc((size_t)connections, sizeof *clients);
    poll_fd = epoll_create1(0);
    make_request(argv[4], argv[5], stream);
    for (int i = 0; i < connections; i++) {
        open_client(&clients[i]);
        ask(&clients[i]);
        if (hold && i % 50 == 49)
            run(0.01, stream); /* not faster than they can be taken */
    }
    run(atof(argv[3]), stream);
    long open = 0;
    for (int i = 0; i < connections; i++)
        open += !clients[i].first;
    printf("{\"requests\":%ld,\"errors\":%ld,\"chunks\":%ld,\"streaming\":%ld,\"p50_us\":%.1f,\"p99_us\":%.1f,"
           "\"first_p50_us\":%.1f,\"first_p99_us\":%.1f,\"lag_p50_us\":%.1f,\"lag_p99_us\":%.1f}\n",
           requests, errors, streams, open, quantile(&whole, .5), quantile(&whole, .99), quantile(&first_chunk, .5),
           quantile(&first_chunk, .99), quantile(&lag, .5), quantile(&lag, .99));
    return 0;
}
