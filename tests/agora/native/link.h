/*
 * A link: one socket to the hub, and the messages that pass over it (wire.py has their text).
 *
 * Sending never waits: what the socket does not accept at once is queued, and sent by the
 * reader. Links are never freed, for any thread may still be about to send something.
 */
#ifndef LINK_H
#define LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MAX_WORDS = 16 };

struct message {
    char *words[MAX_WORDS]; /* decoded; the first is the kind */
    int count;              /* of words, the payload's length left out */
    const uint8_t *payload;
    size_t length;
};

struct link;

typedef void handle_message_fn(void *owner, struct link *link, const struct message *message);

/* Connects to the hub of the environment's XDG_AGORA_HUB; NULL if there is none. */
struct link *link_open(void);

/* Waits for a message, which is good until the next; false once the hub is gone. */
bool link_receive(struct link *link, struct message *message);

/* Starts a thread that receives all messages from now on. */
bool link_follow(struct link *link, handle_message_fn *handle, void *owner);

/* Sends one message: `types` has a letter per argument, t(ext), i(nt) or l (int64_t). */
bool link_send(struct link *link, const char *kind, const char *types, ...);
bool link_send_payload(struct link *link, const void *payload, size_t length, const char *kind,
                       const char *types, ...);

/* Whether everything queued was sent within that time. */
bool link_settles(struct link *link, int milliseconds);

/* Ends the link; its reader then ends, too. */
void link_shut(struct link *link);

#endif
