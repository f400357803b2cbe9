#include "connection.h"

#include <stdlib.h>
#include <string.h>

#include "service.h"

/* A copy that outlives the caller's original. */
static void *copied(const void *original, size_t size)
{
    void *copy = original ? malloc(size) : NULL;
    return copy ? memcpy(copy, original, size) : NULL;
}

bool is_joined(const struct connection *connection)
{
    return connection->link && !connection->leaving;
}

/* ---- messages about a member; once joined, under the lock ---- */

void send_to_hub(const struct connection *connection, const char *what, const char *of)
{
    if (is_joined(connection))
        link_send(connection->link, what, "t", of);
}

void send_encoder(const struct connection *connection)
{
    const struct video_track *track = connection->video;
    if (!track || !track->has_encoder || !is_joined(connection))
        return;
    const struct video_encoder_config *encoder = &track->encoder;
    link_send(connection->link, "encoder", "iiiiii", encoder->dimensions.width,
              encoder->dimensions.height, encoder->frame_rate, encoder->bitrate,
              encoder->min_bitrate, encoder->codec_type);
}

static void send_earlier_settings(const struct connection *connection)
{
    send_sound_profile(connection);
    if (connection->audio)
        send_to_hub(connection, "publish", "audio");
    if (connection->video)
        send_to_hub(connection, "publish", "video");
    for (int i = 0; i < connection->seen.count; i++)
        send_to_hub(connection, "subscribe", connection->seen.users[i]);
    for (int i = 0; i < connection->heard.count; i++)
        send_sound_subscription(connection, connection->heard.users[i]);
    send_encoder(connection);
}

/* ---- the connection ---- */

API struct connection *agora_rtc_conn_create(void *service, const struct rtc_conn_config *config)
{
    CALL(struct connection *);
    lock_objects();
    bool possible = service && config && service_is_open();
    unlock_objects();
    struct connection *connection = possible ? calloc(1, sizeof *connection) : NULL;
    if (connection) {
        connection->state = DISCONNECTED;
        connection->role = config->client_role_type;
        connection->plays_out = config->enable_audio_recording_or_playout != 0;
        connection->channel = connection->user = "";
    }
    return connection;
}

API struct connection *agora_rtc_conn_get_local_user(struct connection *connection)
{
    CALL(struct connection *);
    return connection;
}

BARE_OBJECT(agora_rtc_conn_get_agora_parameter)

static int join(struct connection *connection, const char *token, const char *channel,
                const char *user)
{
    if (connection->state != DISCONNECTED)
        return INVALID_STATE;
    struct link *link = service_is_open() ? link_open() : NULL;
    if (!link)
        return NOT_INITIALIZED;
    if (connection->link)
        link_shut(connection->link);
    connection->link = link;
    connection->leaving = false;
    connection->state = CONNECTING;
    connection->channel = strdup(channel);
    connection->user = strdup(user);
    link_send(link, "join", "tttti", service_app_id(), channel, user, token, connection->role);
    send_earlier_settings(connection);
    return link_follow(link, handle_message, connection) ? OK : FAILED;
}

API int agora_rtc_conn_connect(struct connection *connection, const char *token,
                               const char *channel, const char *user)
{
    CALL(int);
    if (!connection || !token || !channel || !user)
        return INVALID_ARGUMENT;
    lock_objects();
    int result = join(connection, token, channel, user);
    unlock_objects();
    return result;
}

API int agora_rtc_conn_disconnect(struct connection *connection)
{
    CALL(int);
    if (!connection)
        return INVALID_ARGUMENT;
    lock_objects();
    if (is_joined(connection)) {
        link_send(connection->link, "leave", "");
        connection->leaving = true;
    }
    unlock_objects();
    return OK;
}

API void agora_rtc_conn_destroy(struct connection *connection)
{
    CALL(void);
    if (!connection)
        return;
    lock_objects();
    connection->observer = NULL;
    connection->user_observer = NULL;
    connection->frame_observer = NULL;
    connection->sound_observer = NULL;
    if (connection->link)
        link_shut(connection->link);
    connection->link = NULL;
    unlock_objects();
}

API int agora_rtc_conn_renew_token(struct connection *connection, const char *token)
{
    CALL(int);
    if (!connection || !token)
        return INVALID_ARGUMENT;
    lock_objects();
    bool joined = is_joined(connection);
    if (joined)
        link_send(connection->link, "renew", "t", token);
    unlock_objects();
    return joined ? OK : INVALID_STATE;
}

/* ---- observers ---- */

static int set_observer(struct connection *connection, const struct rtc_conn_observer *observer)
{
    if (!connection)
        return INVALID_ARGUMENT;
    lock_objects();
    connection->observer = observer;
    unlock_objects();
    return OK;
}

static int set_user_observer(struct connection *user, const struct local_user_observer *observer)
{
    if (!user)
        return INVALID_ARGUMENT;
    lock_objects();
    user->user_observer = observer;
    unlock_objects();
    return OK;
}

static int set_frame_observer(struct connection *user,
                              const struct video_frame_observer *observer)
{
    if (!user)
        return INVALID_ARGUMENT;
    lock_objects();
    user->frame_observer = observer;
    unlock_objects();
    return OK;
}

API int agora_rtc_conn_register_observer(struct connection *connection,
                                         const struct rtc_conn_observer *observer)
{
    CALL(int);
    return set_observer(connection, copied(observer, sizeof *observer));
}

API int agora_rtc_conn_unregister_observer(struct connection *connection)
{
    CALL(int);
    return set_observer(connection, NULL);
}

API int agora_local_user_register_observer(struct connection *user,
                                           const struct local_user_observer *observer)
{
    CALL(int);
    return set_user_observer(user, copied(observer, sizeof *observer));
}

API int agora_local_user_unregister_observer(struct connection *user)
{
    CALL(int);
    return set_user_observer(user, NULL);
}

API void *agora_video_frame_observer2_create(const struct video_frame_observer *observer)
{
    CALL(void *);
    return copied(observer, sizeof *observer);
}

API int agora_local_user_register_video_frame_observer(struct connection *user,
                                                       const struct video_frame_observer *observer)
{
    CALL(int);
    return observer ? set_frame_observer(user, observer) : INVALID_ARGUMENT;
}

API int agora_local_user_unregister_video_frame_observer(struct connection *user)
{
    CALL(int);
    return set_frame_observer(user, NULL);
}

/* Observers that are made, registered and never called. */
BARE_OBJECT(agora_video_encoded_frame_observer_create)
BARE_OBJECT(agora_local_user_capabilities_observer_create)

/* ---- publishing ---- */

API int agora_local_user_publish_video(struct connection *user, struct video_track *track)
{
    CALL(int);
    if (!user || !track)
        return INVALID_ARGUMENT;
    lock_objects();
    user->video = track;
    track->publisher = user;
    send_to_hub(user, "publish", "video");
    send_encoder(user);
    unlock_objects();
    return OK;
}

API int agora_local_user_unpublish_video(struct connection *user, struct video_track *track)
{
    CALL(int);
    if (!user || !track)
        return INVALID_ARGUMENT;
    lock_objects();
    if (user->video == track)
        user->video = NULL;
    send_to_hub(user, "unpublish", "video");
    unlock_objects();
    return OK;
}

/* ---- subscribing ---- */

static int find_subscription(const struct subscriptions *subscriptions, const char *remote)
{
    int i = 0;
    while (i < subscriptions->count && strcmp(subscriptions->users[i], remote) != 0)
        i++;
    return i;
}

bool add_subscription(struct subscriptions *subscriptions, const char *remote)
{
    if (find_subscription(subscriptions, remote) < subscriptions->count)
        return true;
    if (subscriptions->count == MAX_SUBSCRIPTIONS)
        return false;
    subscriptions->users[subscriptions->count++] = strdup(remote);
    return true;
}

void drop_subscription(struct subscriptions *subscriptions, const char *remote)
{
    int place = find_subscription(subscriptions, remote);
    if (place < subscriptions->count)
        subscriptions->users[place] = subscriptions->users[--subscriptions->count];
}

API int agora_local_user_subscribe_video(struct connection *user, const char *remote)
{
    CALL(int);
    if (!user || !remote)
        return INVALID_ARGUMENT;
    lock_objects();
    bool added = add_subscription(&user->seen, remote);
    if (added)
        send_to_hub(user, "subscribe", remote);
    unlock_objects();
    return added ? OK : RESOURCE_LIMITED;
}

API int agora_local_user_unsubscribe_video(struct connection *user, const char *remote)
{
    CALL(int);
    if (!user || !remote)
        return INVALID_ARGUMENT;
    lock_objects();
    drop_subscription(&user->seen, remote);
    send_to_hub(user, "unsubscribe", remote);
    unlock_objects();
    return OK;
}

API int agora_local_user_send_intra_request(struct connection *user, const char *remote)
{
    CALL(int);
    if (!user || !remote)
        return INVALID_ARGUMENT;
    lock_objects();
    bool joined = is_joined(user);
    send_to_hub(user, "intra", remote);
    unlock_objects();
    return joined ? OK : INVALID_STATE;
}
