/*
 * Sound: published as PCM blocks, and heard of one user before mixing. What the real library would
 * lose without a word is lost here as well, so that a test sees it.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "connection.h"
#include "service.h"

enum { WIDTH = 2, MOST_SAMPLES = 48000 }; /* bytes of a sample; samples of one block, one second */

struct pcm_sender {
    struct audio_track *track; /* what it feeds; guarded by the lock of the objects */
};

/* ---- objects ---- */

BARE_OBJECT(agora_media_node_factory_create_audio_encoded_frame_sender)
BARE_OBJECT(agora_service_create_custom_audio_track_encoded)

API struct pcm_sender *agora_media_node_factory_create_audio_pcm_data_sender(void)
{
    CALL(struct pcm_sender *);
    return calloc(1, sizeof(struct pcm_sender));
}

static struct audio_track *make_track(const void *service, struct pcm_sender *sender)
{
    struct audio_track *track = service && sender ? calloc(1, sizeof *track) : NULL;
    lock_objects();
    if (track)
        sender->track = track;
    unlock_objects();
    return track;
}

API struct audio_track *agora_service_create_custom_audio_track_pcm(void *service,
                                                                    struct pcm_sender *sender)
{
    CALL(struct audio_track *);
    return make_track(service, sender);
}

API struct audio_track *agora_service_create_direct_custom_audio_track_pcm(void *service,
                                                                           struct pcm_sender *sender)
{
    CALL(struct audio_track *);
    return make_track(service, sender);
}

API int agora_local_audio_track_set_enabled(struct audio_track *track, int enabled)
{
    CALL(int);
    if (!track)
        return INVALID_ARGUMENT;
    lock_objects();
    track->enabled = enabled != 0;
    unlock_objects();
    return OK;
}

API void agora_local_audio_track_set_send_delay_ms(struct audio_track *track, int milliseconds)
{
    CALL(void);
    if (track)
        track->send_delay_ms = milliseconds;
}

API void agora_local_audio_track_set_max_bufferd_frame_number(struct audio_track *track, int frames)
{
    CALL(void);
    if (track)
        track->max_buffered_frames = frames;
}

/* ---- how it is encoded ---- */

void send_sound_profile(const struct connection *connection)
{
    if (connection->audio && is_joined(connection))
        link_send(connection->link, "sound_profile", "ii", connection->audio_profile,
                  connection->audio_scenario);
}

API int agora_local_user_set_audio_scenario(struct connection *user, int scenario)
{
    CALL(int);
    if (!user)
        return INVALID_ARGUMENT;
    lock_objects();
    user->audio_scenario = scenario;
    send_sound_profile(user);
    unlock_objects();
    return OK;
}

API int agora_local_user_set_audio_encoder_config(struct connection *user,
                                                  const struct audio_encoder_config *config)
{
    CALL(int);
    if (!user || !config)
        return INVALID_ARGUMENT;
    lock_objects();
    user->audio_profile = config->audio_profile;
    send_sound_profile(user);
    unlock_objects();
    return OK;
}

/* ---- publishing ---- */

API int agora_local_user_publish_audio(struct connection *user, struct audio_track *track)
{
    CALL(int);
    if (!user || !track)
        return INVALID_ARGUMENT;
    lock_objects();
    user->audio = track;
    track->publisher = user;
    send_sound_profile(user);
    send_to_hub(user, "publish", "audio");
    unlock_objects();
    return OK;
}

API int agora_local_user_unpublish_audio(struct connection *user, struct audio_track *track)
{
    CALL(int);
    if (!user || !track)
        return INVALID_ARGUMENT;
    lock_objects();
    if (user->audio == track)
        user->audio = NULL;
    send_to_hub(user, "unpublish", "audio");
    unlock_objects();
    return OK;
}

static int64_t now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* Where the sender's blocks go, under the lock; NULL: nowhere, as nobody could hear them. */
static struct link *outlet(const struct pcm_sender *sender)
{
    const struct audio_track *track = sender->track;
    const struct connection *connection = track && track->enabled ? track->publisher : NULL;
    if (!connection || connection->audio != track || connection->state != CONNECTED)
        return NULL;
    return is_joined(connection) ? connection->link : NULL;
}

API int agora_audio_pcm_data_sender_send(struct pcm_sender *sender, const void *pcm,
                                         uint32_t timestamp, int64_t pts, uint32_t samples,
                                         uint32_t width, uint32_t channels, uint32_t rate)
{
    CALL(int);
    (void)timestamp;
    if (!sender || !pcm || width != WIDTH || !channels || channels > 2 || !rate ||
        samples > MOST_SAMPLES)
        return INVALID_ARGUMENT;
    lock_objects();
    struct link *link = outlet(sender);
    unlock_objects();
    if (link && samples)
        link_send_payload(link, pcm, (size_t)samples * width * channels, "sound", "iill", (int)rate,
                          (int)channels, pts, now_us());
    return OK; /* also where nobody hears it */
}

/* ---- hearing ---- */

void send_sound_subscription(const struct connection *connection, const char *remote)
{
    if (is_joined(connection))
        link_send(connection->link, "subscribe_sound", "ti", remote, (int)connection->plays_out);
}

API int agora_local_user_set_playback_audio_frame_before_mixing_parameters(struct connection *user,
                                                                           int channels, int rate)
{
    CALL(int);
    if (!user || channels < 1 || rate < 1)
        return INVALID_ARGUMENT;
    lock_objects();
    if (!user->sound_observer) { /* too late: the real one takes them at the registration */
        user->heard_channels = channels;
        user->heard_rate = rate;
    }
    unlock_objects();
    return OK;
}

API int agora_local_user_register_audio_frame_observer(struct connection *user,
                                                       const struct audio_frame_observer *observer)
{
    CALL(int);
    if (!user || !observer)
        return INVALID_ARGUMENT;
    struct audio_frame_observer *copy = malloc(sizeof *copy);
    if (!copy)
        return FAILED;
    *copy = *observer;
    lock_objects();
    user->sound_observer = copy;
    unlock_objects();
    return OK;
}

API int agora_local_user_unregister_audio_frame_observer(struct connection *user)
{
    CALL(int);
    if (!user)
        return INVALID_ARGUMENT;
    lock_objects();
    user->sound_observer = NULL;
    unlock_objects();
    return OK;
}

API int agora_local_user_subscribe_audio(struct connection *user, const char *remote)
{
    CALL(int);
    if (!user || !remote)
        return INVALID_ARGUMENT;
    lock_objects();
    bool added = add_subscription(&user->heard, remote);
    if (added)
        send_sound_subscription(user, remote);
    unlock_objects();
    return added ? OK : RESOURCE_LIMITED;
}

API int agora_local_user_unsubscribe_audio(struct connection *user, const char *remote)
{
    CALL(int);
    if (!user || !remote)
        return INVALID_ARGUMENT;
    lock_objects();
    drop_subscription(&user->heard, remote);
    send_to_hub(user, "unsubscribe_sound", remote);
    unlock_objects();
    return OK;
}
