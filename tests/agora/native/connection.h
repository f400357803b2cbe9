/*
 * A connection to a channel, which is its local user as well, and what is published over it.
 * All of it is guarded by the lock of the objects. Nothing is ever freed, as with counted
 * references: a callback may still be running when its connection is destroyed.
 */
#ifndef CONNECTION_H
#define CONNECTION_H

#include <stdbool.h>

#include "abi.h"
#include "link.h"

enum { MAX_SUBSCRIPTIONS = 16 };

struct video_track {
    bool enabled, has_encoder;
    struct video_encoder_config encoder;
    struct connection *publisher; /* the last connection it was published over */
};

struct connection {
    struct link *link; /* NULL: not in a channel */
    bool leaving;      /* the hub was told; it has yet to answer */
    enum connection_state state;
    int role;
    const char *channel, *user; /* never NULL */
    bool was_let_in;            /* into the channel, since it was made */

    const struct rtc_conn_observer *observer; /* NULL: nobody listens */
    const struct local_user_observer *user_observer;
    const struct video_frame_observer *frame_observer;

    bool publishes_audio;
    struct video_track *video; /* NULL: none is published */
    const char *subscribed[MAX_SUBSCRIPTIONS];
    int subscriptions;
};

bool is_joined(const struct connection *connection);

/* Tells the hub how the published track is to be encoded, if anybody has said so. */
void send_encoder(const struct connection *connection);

/* Hears what the hub has to say to a connection; needs no lock. */
handle_message_fn handle_message;

#endif
