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

struct audio_track {
    bool enabled;
    int send_delay_ms, max_buffered_frames;
    struct connection *publisher; /* the last connection it was published over */
};

struct subscriptions {
    const char *users[MAX_SUBSCRIPTIONS];
    int count;
};

struct connection {
    struct link *link; /* NULL: not in a channel */
    bool leaving;      /* the hub was informed; its answer is due */
    enum connection_state state;
    int role;
    const char *channel, *user; /* never NULL */
    bool was_let_in;            /* into the channel, since its creation */

    const struct rtc_conn_observer *observer; /* NULL: none registered */
    const struct local_user_observer *user_observer;
    const struct video_frame_observer *frame_observer;
    const struct audio_frame_observer *sound_observer;

    struct video_track *video; /* NULL: none is published */
    struct audio_track *audio; /* NULL: none is published */
    struct subscriptions seen, heard;

    int audio_scenario, audio_profile;
    bool plays_out;              /* enable_audio_recording_or_playout */
    int heard_rate, heard_channels; /* before mixing; 0: not set */
};

bool is_joined(const struct connection *connection);

/* False: there are too many already. */
bool add_subscription(struct subscriptions *subscriptions, const char *remote);
void drop_subscription(struct subscriptions *subscriptions, const char *remote);

/* Sends a message with one text, if the connection has joined. */
void send_to_hub(const struct connection *connection, const char *what, const char *of);

/* Sends the profile and scenario of the published sound to the hub, if there is any. */
void send_sound_profile(const struct connection *connection);
void send_sound_subscription(const struct connection *connection, const char *remote);

/* Sends the encoder settings of the published track to the hub, if there are any. */
void send_encoder(const struct connection *connection);

/* Handles the hub's messages to a connection; needs no lock. */
handle_message_fn handle_message;

#endif
