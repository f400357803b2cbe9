#include "link.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum {
    MAX_LINE = 16 * 1024,
    MAX_QUEUED = 4 * 1024 * 1024,     /* a hub this far behind misses messages */
    MAX_PAYLOAD = 64 * 1024 * 1024, /* more is no frame */
};

struct link {
    pthread_mutex_t lock; /* keeps messages whole: guards the end of fd, and the queue */
    int fd;               /* -1 once the hub is gone; only the reader closes it */
    int wake;             /* eventfd: wakes the reader when something is queued */
    uint8_t *queued;
    size_t queued_length, owed_room;

    /* The reader's own. */
    handle_message_fn *handle;
    void *owner;
    char inbox[MAX_LINE];
    size_t inbox_start, inbox_end;
    uint8_t *payload;
    size_t payload_room;
};

/* ---- texts on the wire ---- */

struct line {
    char text[MAX_LINE];
    size_t length;
    bool too_long;
};

static void put(struct line *line, char character)
{
    if (line->length < sizeof line->text)
        line->text[line->length++] = character;
    else
        line->too_long = true;
}

static bool is_plain(char character)
{
    return (character >= 'a' && character <= 'z') || (character >= 'A' && character <= 'Z') ||
           (character >= '0' && character <= '9') || (character && strchr("_.-~", character));
}

static void put_text(struct line *line, const char *text)
{
    static const char digits[] = "0123456789ABCDEF";
    if (!text || !*text)
        put(line, '%');
    for (; text && *text; text++) {
        if (is_plain(*text)) {
            put(line, *text);
        } else {
            put(line, '%');
            put(line, digits[(uint8_t)*text >> 4]);
            put(line, digits[(uint8_t)*text & 15]);
        }
    }
}

static void put_number(struct line *line, int64_t number)
{
    char digits[24];
    snprintf(digits, sizeof digits, "%lld", (long long)number);
    for (const char *digit = digits; *digit; digit++)
        put(line, *digit);
}

static void compose(struct line *line, const char *kind, const char *types, va_list arguments,
                    size_t payload_length)
{
    line->length = 0;
    line->too_long = false;
    put_text(line, kind);
    for (; *types; types++) {
        put(line, ' ');
        if (*types == 't')
            put_text(line, va_arg(arguments, const char *));
        else
            put_number(line, *types == 'l' ? va_arg(arguments, int64_t) : va_arg(arguments, int));
    }
    put(line, ' ');
    put_number(line, (int64_t)payload_length);
    put(line, '\n');
}

static int hex(char digit)
{
    const char *digits = "0123456789abcdef";
    const char *place = digit ? strchr(digits, digit | 0x20) : NULL;
    return place ? (int)(place - digits) : -1;
}

static void decode(char *text)
{
    char *end = text;
    for (; *text; text++) {
        if (*text != '%') {
            *end++ = *text;
        } else if (hex(text[1]) >= 0 && hex(text[2]) >= 0) {
            *end++ = (char)(hex(text[1]) << 4 | hex(text[2]));
            text += 2;
        }
    }
    *end = '\0';
}

/* ---- sending, under the link's lock ---- */

/* Sends what the socket accepts at once; reports all as sent if it is dead. */
static size_t push(struct link *link, const uint8_t *bytes, size_t length)
{
    size_t sent = 0;
    while (sent < length) {
        ssize_t count = send(link->fd, bytes + sent, length - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (count >= 0)
            sent += (size_t)count;
        else if (errno == EAGAIN)
            break;
        else if (errno != EINTR)
            return length;
    }
    return sent;
}

static void owe(struct link *link, const uint8_t *bytes, size_t length)
{
    size_t needed = link->queued_length + length;
    if (needed > link->owed_room) {
        uint8_t *larger = realloc(link->queued, needed);
        if (!larger)
            abort(); /* half a message would garble all that follow */
        link->queued = larger;
        link->owed_room = needed;
    }
    memcpy(link->queued + link->queued_length, bytes, length);
    link->queued_length = needed;
}

static void pay(struct link *link)
{
    if (!link->queued_length)
        return;
    size_t sent = push(link, link->queued, link->queued_length);
    link->queued_length -= sent;
    memmove(link->queued, link->queued + sent, link->queued_length);
}

static void send_or_owe(struct link *link, const void *bytes, size_t length)
{
    size_t sent = link->queued_length ? 0 : push(link, bytes, length);
    if (sent < length)
        owe(link, (const uint8_t *)bytes + sent, length - sent);
}

static void wake_reader(struct link *link)
{
    const uint64_t one = 1;
    ssize_t written = write(link->wake, &one, sizeof one);
    (void)written; /* it fails only if the reader is already woken */
}

static bool transmit(struct link *link, const struct line *line, const void *payload,
                     size_t length)
{
    if (line->too_long)
        return false;
    pthread_mutex_lock(&link->lock);
    bool taken = link->fd >= 0;
    if (taken) {
        pay(link);
        taken = link->queued_length + line->length + length <= MAX_QUEUED;
    }
    if (taken) {
        send_or_owe(link, line->text, line->length);
        send_or_owe(link, payload, length);
        if (link->queued_length)
            wake_reader(link);
    }
    pthread_mutex_unlock(&link->lock);
    return taken;
}

bool link_send(struct link *link, const char *kind, const char *types, ...)
{
    struct line line;
    va_list arguments;
    va_start(arguments, types);
    compose(&line, kind, types, arguments, 0);
    va_end(arguments);
    return transmit(link, &line, "", 0);
}

bool link_send_payload(struct link *link, const void *payload, size_t length, const char *kind,
                       const char *types, ...)
{
    struct line line;
    va_list arguments;
    va_start(arguments, types);
    compose(&line, kind, types, arguments, length);
    va_end(arguments);
    return transmit(link, &line, payload, length);
}

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

bool link_settles(struct link *link, int milliseconds)
{
    const int64_t deadline = now_ms() + milliseconds;
    for (;;) {
        pthread_mutex_lock(&link->lock);
        struct pollfd socket = {.fd = link->fd, .events = POLLOUT};
        if (socket.fd >= 0)
            pay(link);
        bool settled = !link->queued_length;
        pthread_mutex_unlock(&link->lock);
        if (settled || socket.fd < 0)
            return settled;
        int64_t left = deadline - now_ms();
        if (left <= 0 || poll(&socket, 1, (int)left) <= 0)
            return false;
    }
}

/* ---- receiving, only by the reader ---- */

static bool is_in_debt(struct link *link)
{
    pthread_mutex_lock(&link->lock);
    bool in_debt = link->queued_length > 0;
    pthread_mutex_unlock(&link->lock);
    return in_debt;
}

static void pay_when_woken(struct link *link)
{
    uint64_t times;
    ssize_t count = read(link->wake, &times, sizeof times);
    (void)count; /* it does not block, and its result is not needed */
    pthread_mutex_lock(&link->lock);
    pay(link);
    pthread_mutex_unlock(&link->lock);
}

/* Waits for something to read, and sends what is queued meanwhile. */
static void await_input(struct link *link)
{
    for (;;) {
        const short events = is_in_debt(link) ? POLLIN | POLLOUT : POLLIN;
        struct pollfd ends[] = {
            {.fd = link->fd, .events = events},
            {.fd = link->wake, .events = POLLIN},
        };
        if (poll(ends, 2, -1) < 0)
            continue;
        if (ends[1].revents || ends[0].revents & POLLOUT)
            pay_when_woken(link);
        if (ends[0].revents & ~POLLOUT)
            return;
    }
}

/* How many bytes came, at least one; 0: the hub is gone. */
static size_t receive(struct link *link, void *into, size_t room)
{
    for (;;) {
        await_input(link);
        ssize_t count = recv(link->fd, into, room, MSG_DONTWAIT);
        if (count >= 0)
            return (size_t)count;
        if (errno != EAGAIN && errno != EINTR)
            return 0;
    }
}

static char *next_line(struct link *link)
{
    for (;;) {
        char *start = link->inbox + link->inbox_start;
        size_t length = link->inbox_end - link->inbox_start;
        char *end = memchr(start, '\n', length);
        if (end) {
            *end = '\0';
            link->inbox_start += (size_t)(end - start) + 1;
            return start;
        }
        memmove(link->inbox, start, length);
        link->inbox_start = 0;
        link->inbox_end = length;
        size_t room = MAX_LINE - length;
        size_t count = room ? receive(link, link->inbox + length, room) : 0;
        if (!count)
            return NULL;
        link->inbox_end += count;
    }
}

static bool split(char *line, struct message *message)
{
    char *rest = line, *word;
    message->count = 0;
    while ((word = strsep(&rest, " "))) {
        if (message->count == MAX_WORDS)
            return false;
        decode(message->words[message->count++] = word);
    }
    if (message->count < 2)
        return false;
    message->length = strtoul(message->words[--message->count], NULL, 10);
    return message->length <= MAX_PAYLOAD;
}

static bool make_room(struct link *link, size_t length)
{
    if (length <= link->payload_room)
        return true;
    free(link->payload);
    link->payload = malloc(length);
    link->payload_room = link->payload ? length : 0;
    return link->payload;
}

static bool take_payload(struct link *link, struct message *message)
{
    if (!make_room(link, message->length))
        return false;
    size_t taken = link->inbox_end - link->inbox_start;
    if (taken > message->length)
        taken = message->length;
    if (taken)
        memcpy(link->payload, link->inbox + link->inbox_start, taken);
    link->inbox_start += taken;
    while (taken < message->length) {
        size_t count = receive(link, link->payload + taken, message->length - taken);
        if (!count)
            return false;
        taken += count;
    }
    message->payload = link->payload;
    return true;
}

static void close_link(struct link *link)
{
    pthread_mutex_lock(&link->lock);
    close(link->fd);
    close(link->wake);
    link->fd = link->wake = -1;
    link->queued_length = 0;
    pthread_mutex_unlock(&link->lock);
}

bool link_receive(struct link *link, struct message *message)
{
    if (link->fd < 0)
        return false;
    char *line = next_line(link);
    if (line && split(line, message) && take_payload(link, message))
        return true;
    close_link(link);
    return false;
}

/* ---- beginning and end ---- */

static bool hub_address(struct sockaddr_un *address)
{
    const char *path = getenv("XDG_AGORA_HUB");
    if (!path || !*path || strlen(path) >= sizeof address->sun_path)
        return false;
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    strcpy(address->sun_path, path);
    return true;
}

struct link *link_open(void)
{
    struct sockaddr_un address;
    struct link *link = hub_address(&address) ? calloc(1, sizeof *link) : NULL;
    if (!link)
        return NULL;
    pthread_mutex_init(&link->lock, NULL);
    link->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    link->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (link->fd >= 0 && link->wake >= 0 &&
        connect(link->fd, (const struct sockaddr *)&address, sizeof address) == 0)
        return link;
    close_link(link);
    free(link);
    return NULL;
}

static void *follow(void *argument)
{
    struct link *link = argument;
    struct message message;
    while (link_receive(link, &message))
        link->handle(link->owner, link, &message);
    return NULL;
}

bool link_follow(struct link *link, handle_message_fn *handle, void *owner)
{
    pthread_t reader;
    link->handle = handle;
    link->owner = owner;
    if (pthread_create(&reader, NULL, follow, link) != 0) {
        close_link(link);
        return false;
    }
    pthread_detach(reader);
    return true;
}

void link_shut(struct link *link)
{
    pthread_mutex_lock(&link->lock);
    if (link->fd >= 0)
        shutdown(link->fd, SHUT_RDWR);
    pthread_mutex_unlock(&link->lock);
}
