/* upstream PORT CHUNKS GAP_MS: a very cheap OpenAI-compatible model server, for measuring what stands before it.
 *
 * One thread, epoll. A body that asks for a stream gets CHUNKS events GAP_MS apart, whose content is the time they
 * were sent at (CLOCK_MONOTONIC, nanoseconds); any other POST gets one answer of about 600 bytes; a GET gets 200. */
#include "net.h"

enum { INPUT = 64 * 1024, EVENTS = 512 };

typedef struct Client {
    int fd, used, sent, streaming;
    long due;
    struct Client *next; /* in the queue of streams, ordered by when they are due: all gaps are alike */
    char input[INPUT];
} Client;

static Client *first, *last;
static int chunks;
static long gap;
static char answer[2048];
static int answer_length;

static void write_all(Client *client, const char *data, int length) {
    while (length > 0) {
        ssize_t done = send(client->fd, data, (size_t)length, MSG_NOSIGNAL);
        if (done > 0) {
            data += done;
            length -= (int)done;
        } else if (errno != EAGAIN) {
            client->streaming = 0;
            return;
        } else {
            usleep(20);
        }
    }
}

static void enqueue(Client *client, long due) {
    client->due = due;
    client->next = NULL;
    if (last)
        last->next = client;
    else
        first = client;
    last = client;
}

static void send_event(Client *client) {
    static const char *frame = "data: {\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion.chunk\",\"created\":1760000000,"
                               "\"model\":\"bench\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"%ld \"},\"logprobs\":null,"
                               "\"finish_reason\":null}]}\n\n";
    static const char *end = "data: {\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion.chunk\",\"created\":1760000000,"
                             "\"model\":\"bench\",\"choices\":[{\"index\":0,\"delta\":{},\"logprobs\":null,\"finish_reason\":"
                             "\"stop\"}]}\n\ndata: {\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion.chunk\",\"created\":"
                             "1760000000,\"model\":\"bench\",\"choices\":[],\"usage\":{\"prompt_tokens\":120,"
                             "\"completion_tokens\":%ld,\"total_tokens\":%ld}}\n\ndata: [DONE]\n\n";
    char event[1024], out[1100];
    int done = client->sent == chunks;
    int size = done ? snprintf(event, sizeof event, end, (long)chunks, (long)chunks + 120)
                    : snprintf(event, sizeof event, frame, now_ns());
    int length = snprintf(out, sizeof out, "%x\r\n%s\r\n%s", size, event, done ? "0\r\n\r\n" : "");
    client->sent++;
    if (done)
        client->streaming = 0;
    write_all(client, out, length);
}

static void begin_stream(Client *client) {
    static const char head[] = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    client->streaming = 1;
    client->sent = 0;
    write_all(client, head, sizeof head - 1);
    enqueue(client, now_ns());
}

/* Answers every whole request in the buffer, and keeps what is left. */
static void serve(Client *client) {
    for (;;) {
        char *end = memmem(client->input, (size_t)client->used, "\r\n\r\n", 4);
        if (!end)
            return;
        *end = 0;
        char *field = strcasestr(client->input, "content-length:");
        int head = (int)(end - client->input) + 4, body = field ? atoi(field + 15) : 0;
        *end = '\r';
        if (client->used < head + body || head + body > INPUT)
            return;
        int stream = memmem(client->input + head, (size_t)body, "\"stream\":true", 13) != NULL;
        memmove(client->input, client->input + head + body, (size_t)(client->used - head - body));
        client->used -= head + body;
        if (stream)
            begin_stream(client);
        else
            write_all(client, answer, answer_length);
    }
}

static void make_answer(void) {
    static const char *body =
        "{\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion\",\"created\":1760000000,\"model\":\"bench\",\"choices\":[{"
        "\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"A made-up answer of the length that a short real one "
        "has, so that an answer weighs about six hundred bytes on the wire: no more and no less, whoever carries it. It says "
        "nothing, but it says it at once, every time, and in the same words.\",\"refusal\":null},\"logprobs\":null,"
        "\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":120,\"completion_tokens\":31,\"total_tokens\":151,"
        "\"prompt_tokens_details\":{\"cached_tokens\":0},\"completion_tokens_details\":{\"reasoning_tokens\":0}}}";
    answer_length = snprintf(answer, sizeof answer, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %zu\r\n\r\n%s",
                             strlen(body), body);
}

static int next_wait(void) {
    if (!first)
        return 1000;
    long wait = (first->due - now_ns()) / 1000000;
    return wait < 0 ? 0 : (int)wait;
}

static void send_due(void) {
    for (long now = now_ns(); first && first->due <= now;) {
        Client *client = first;
        first = client->next;
        if (!first)
            last = NULL;
        if (client->fd < 0) {
            free(client); /* it left in mid-stream */
            continue;
        }
        if (client->streaming)
            send_event(client);
        if (client->streaming)
            enqueue(client, client->due + gap);
    }
}

static void leave(Client *client) {
    close(client->fd);
    client->fd = -1;
    if (!client->streaming)
        free(client);
}

int main(int argc, char **argv) {
    if (argc != 4)
        return fprintf(stderr, "usage: upstream PORT CHUNKS GAP_MS\n"), 2;
    signal(SIGPIPE, SIG_IGN);
    raise_open_files();
    chunks = atoi(argv[2]);
    gap = atol(argv[3]) * 1000000L;
    make_answer();
    struct sockaddr_in address = loopback(atoi(argv[1]));
    int one = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), poll = epoll_create1(0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 4096))
        die("listen");
    epoll_ctl(poll, EPOLL_CTL_ADD, listener, &(struct epoll_event){.events = EPOLLIN});
    for (struct epoll_event events[EVENTS];;) {
        int ready = epoll_wait(poll, events, EVENTS, next_wait());
        for (int i = 0; i < ready; i++) {
            Client *client = events[i].data.ptr;
            if (!client) {
                for (int fd; (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0;) {
                    Client *fresh = calloc(1, sizeof *fresh);
                    fresh->fd = fd;
                    set_nodelay(fd);
                    epoll_ctl(poll, EPOLL_CTL_ADD, fd, &(struct epoll_event){.events = EPOLLIN, .data.ptr = fresh});
                }
                continue;
            }
            ssize_t got = recv(client->fd, client->input + client->used, (size_t)(INPUT - client->used), 0);
            if (got <= 0 && errno != EAGAIN) {
                leave(client);
            } else if (got > 0) {
                client->used += (int)got;
                serve(client);
            } else if (got == 0) {
                leave(client);
            }
        }
        send_due();
    }
}
