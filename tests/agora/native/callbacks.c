/*
 * Turns the hub's messages into observer callbacks, on the thread that receives them.
 */
#include <stdlib.h>
#include <string.h>

#include "connection.h"
#include "service.h"

/* Calls a callback of one of the connection's observers, if one is registered. The pointer
 * is read once: the observer may be unregistered meanwhile, without waiting for callbacks. */
#define NOTIFY(connection, which, callback, ...)                                                   \
    do {                                                                                           \
        lock_objects();                                                                            \
        __typeof__((connection)->which) listener = (connection)->which;                            \
        unlock_objects();                                                                          \
        if (listener && listener->callback) {                                                      \
            callback_begins();                                                                     \
            listener->callback((connection), ##__VA_ARGS__);                                       \
            callback_ends();                                                                       \
        }                                                                                          \
    } while (0)

static int number(const struct message *message, int place)
{
    return atoi(message->words[place]);
}

/* ---- the connection's state ---- */

static struct rtc_conn_info state_becomes(struct connection *connection,
                                          enum connection_state state)
{
    lock_objects();
    connection->state = state;
    const struct rtc_conn_info info = {
        .id = 1,
        .channel_id = connection->channel,
        .state = (int)state,
        /* The user is unknown before the join: decoders must expect NULL. */
        .local_user_id = connection->was_let_in ? connection->user : NULL,
        .internal_uid = (unsigned)strtoul(connection->user, NULL, 10),
    };
    unlock_objects();
    return info;
}

static void connecting(struct connection *connection, const struct message *message)
{
    const struct rtc_conn_info info = state_becomes(connection, CONNECTING);
    NOTIFY(connection, observer, on_connecting, &info, number(message, 1));
}

static void connected(struct connection *connection, const struct message *message)
{
    const char *user = strdup(message->words[2]); /* chosen by the hub, if none was given */
    lock_objects();
    connection->user = user;
    connection->was_let_in = true;
    unlock_objects();
    const struct rtc_conn_info info = state_becomes(connection, CONNECTED);
    NOTIFY(connection, observer, on_connected, &info, number(message, 1));
}

/* A link that was left reports nothing more. */
static void end_if_left(struct connection *connection)
{
    lock_objects();
    if (connection->leaving && connection->link) {
        link_shut(connection->link);
        connection->link = NULL;
        connection->leaving = false;
    }
    unlock_objects();
}

static void disconnected(struct connection *connection, const struct message *message)
{
    const struct rtc_conn_info info = state_becomes(connection, DISCONNECTED);
    end_if_left(connection);
    NOTIFY(connection, observer, on_disconnected, &info, number(message, 1));
}

static void reconnecting(struct connection *connection, const struct message *message)
{
    const struct rtc_conn_info info = state_becomes(connection, RECONNECTING);
    NOTIFY(connection, observer, on_reconnecting, &info, number(message, 1));
}

static void reconnected(struct connection *connection, const struct message *message)
{
    const struct rtc_conn_info info = state_becomes(connection, CONNECTED);
    NOTIFY(connection, observer, on_reconnected, &info, number(message, 1));
}

static void lost(struct connection *connection, const struct message *message)
{
    (void)message;
    const struct rtc_conn_info info = state_becomes(connection, RECONNECTING);
    NOTIFY(connection, observer, on_connection_lost, &info);
}

static void failed(struct connection *connection, const struct message *message)
{
    const struct rtc_conn_info info = state_becomes(connection, GAVE_UP);
    NOTIFY(connection, observer, on_connection_failure, &info, number(message, 1));
}

/* ---- the connection's other events ---- */

static void error(struct connection *connection, const struct message *message)
{
    NOTIFY(connection, observer, on_error, number(message, 1), message->words[2]);
}

static void will_expire(struct connection *connection, const struct message *message)
{
    NOTIFY(connection, observer, on_token_privilege_will_expire, message->words[1]);
}

static void did_expire(struct connection *connection, const struct message *message)
{
    (void)message;
    NOTIFY(connection, observer, on_token_privilege_did_expire);
}

static void joined(struct connection *connection, const struct message *message)
{
    NOTIFY(connection, observer, on_user_joined, message->words[1]);
}

static void left(struct connection *connection, const struct message *message)
{
    NOTIFY(connection, observer, on_user_left, message->words[1], number(message, 2));
}

static void stats(struct connection *connection, const struct message *message)
{
    const unsigned short sent = (unsigned short)number(message, 1);
    const unsigned short received = (unsigned short)number(message, 2);
    const struct rtc_stats figures = {
        .tx_k_bit_rate = sent,
        .tx_video_k_bit_rate = sent,
        .rx_k_bit_rate = received,
        .rx_video_k_bit_rate = received,
        .gateway_rtt = number(message, 3),
        .lastmile_delay = (unsigned short)number(message, 3),
        .tx_packet_loss_rate = number(message, 4),
        .rx_packet_loss_rate = number(message, 5),
    };
    NOTIFY(connection, observer, on_transport_stats, &figures);
}

/* ---- video of others ---- */

static char remote_track; /* a remote user's track only has to exist */

static const char *channel_of(const struct connection *connection)
{
    lock_objects();
    const char *channel = connection->channel;
    unlock_objects();
    return channel;
}

static void video_subscribed(struct connection *connection, const struct message *message)
{
    const struct video_track_info info = {
        .owner_uid = (unsigned)strtoul(message->words[1], NULL, 10),
        .channel_id = channel_of(connection),
    };
    NOTIFY(connection, user_observer, on_user_video_track_subscribed, message->words[1], &info,
           &remote_track);
}

static void video_state(struct connection *connection, const struct message *message)
{
    NOTIFY(connection, user_observer, on_user_video_track_state_changed, message->words[1],
           &remote_track, number(message, 2), number(message, 3), 0);
}

static void first_picture(struct connection *connection, const struct message *message)
{
    NOTIFY(connection, user_observer, on_first_remote_video_frame, message->words[1],
           number(message, 2), number(message, 3), 0);
}

static void intra_wanted(struct connection *connection, const struct message *message)
{
    (void)message;
    NOTIFY(connection, user_observer, on_intra_request_received);
}

static bool has_video(void)
{
    lock_objects();
    bool video = service_has_video();
    unlock_objects();
    return video;
}

static void frame(struct connection *connection, const struct message *message)
{
    struct video_frame frame = {
        .type = I420,
        .width = number(message, 2),
        .height = number(message, 3),
        .y_stride = number(message, 4),
        .u_stride = number(message, 5),
        .v_stride = number(message, 6),
        .rotation = number(message, 7),
        .render_time_ms = strtoll(message->words[8], NULL, 10),
    };
    const size_t rows = (size_t)frame.height, half_rows = (rows + 1) / 2;
    const size_t y_size = rows * (size_t)frame.y_stride;
    const size_t u_size = half_rows * (size_t)frame.u_stride;
    const size_t v_size = half_rows * (size_t)frame.v_stride;
    if (message->length != y_size + u_size + v_size || !has_video())
        return;
    frame.y_buffer = message->payload;
    frame.u_buffer = frame.y_buffer + y_size;
    frame.v_buffer = frame.u_buffer + u_size;
    NOTIFY(connection, frame_observer, on_frame, channel_of(connection), message->words[1], &frame);
}

/* ---- sound of others ---- */

static void sound_subscribed(struct connection *connection, const struct message *message)
{
    NOTIFY(connection, user_observer, on_user_audio_track_subscribed, message->words[1],
           &remote_track);
    NOTIFY(connection, user_observer, on_audio_subscribe_state_changed, channel_of(connection),
           message->words[1], SUBSCRIBING, SUBSCRIBED, 0);
}

static void sound_state(struct connection *connection, const struct message *message)
{
    NOTIFY(connection, user_observer, on_user_audio_track_state_changed, message->words[1],
           &remote_track, number(message, 2), number(message, 3), 0);
}

static void first_sound(struct connection *connection, const struct message *message)
{
    NOTIFY(connection, user_observer, on_first_remote_audio_frame, message->words[1], 0);
}

static const struct audio_frame_observer *listener_of(const struct connection *connection,
                                                      int channels, int rate)
{
    lock_objects();
    bool fits = connection->heard_channels == channels && connection->heard_rate == rate;
    const struct audio_frame_observer *listener = fits ? connection->sound_observer : NULL;
    unlock_objects();
    return listener;
}

/* Whether the observer asks for sound before mixing. */
static bool wants_single_users(struct connection *connection,
                               const struct audio_frame_observer *listener)
{
    callback_begins();
    int position = listener->on_get_audio_frame_position
                       ? listener->on_get_audio_frame_position(connection)
                       : 0;
    callback_ends();
    return position & BEFORE_MIXING;
}

/* In no other form than the one that was set before the observer was registered. */
static void sound(struct connection *connection, const struct message *message)
{
    const int rate = number(message, 2), channels = number(message, 3);
    const struct audio_frame_observer *listener = listener_of(connection, channels, rate);
    if (!listener || !wants_single_users(connection, listener))
        return;
    const struct audio_frame frame = {
        .type = PCM_16,
        .samples_per_channel = (int)message->length / (2 * channels),
        .bytes_per_sample = 2,
        .channels = channels,
        .samples_per_sec = rate,
        .buffer = message->payload,
        .presentation_ms = strtoll(message->words[4], NULL, 10),
        .avsync_type = 1,
    };
    NOTIFY(connection, sound_observer, on_playback_audio_frame_before_mixing,
           channel_of(connection), message->words[1], &frame);
}

/* ---- messages ---- */

static const struct {
    const char *kind;
    int words; /* the kind itself among them */
    void (*notify)(struct connection *connection, const struct message *message);
} news[] = {
    {"frame", 9, frame},
    {"sound", 5, sound},
    {"sound_subscribed", 2, sound_subscribed},
    {"sound_state", 4, sound_state},
    {"first_sound", 2, first_sound},
    {"connecting", 2, connecting},
    {"connected", 3, connected},
    {"disconnected", 2, disconnected},
    {"reconnecting", 2, reconnecting},
    {"reconnected", 2, reconnected},
    {"lost", 1, lost},
    {"failed", 2, failed},
    {"error", 3, error},
    {"will_expire", 2, will_expire},
    {"did_expire", 1, did_expire},
    {"joined", 2, joined},
    {"left", 3, left},
    {"video_subscribed", 2, video_subscribed},
    {"video_state", 4, video_state},
    {"first_picture", 4, first_picture},
    {"intra_wanted", 1, intra_wanted},
    {"stats", 6, stats},
};

/* Whether the connection still uses that link, not a newer one or none. */
static bool is_current(const struct connection *connection, const struct link *link)
{
    lock_objects();
    bool current = connection->link == link;
    unlock_objects();
    return current;
}

void handle_message(void *owner, struct link *link, const struct message *message)
{
    if (!is_current(owner, link))
        return;
    for (size_t i = 0; i < sizeof news / sizeof *news; i++)
        if (strcmp(message->words[0], news[i].kind) == 0 && message->count >= news[i].words)
            news[i].notify(owner, message);
}
