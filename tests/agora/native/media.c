/*
 * Video tracks and what feeds them: frames are copied, cropped and sent. For encoded pictures the
 * library only has the objects.
 */
#include <stdlib.h>
#include <string.h>

#include "connection.h"
#include "service.h"

enum { RETRY_TIMEOUT_MS = 50 }; /* with a hub that still reads an earlier frame */

struct video_sender {
    struct video_track *track; /* what it feeds; guarded by the lock of the objects */
};

/* ---- objects ---- */

BARE_OBJECT(agora_media_node_factory_create_video_encoded_image_sender)

API struct video_sender *agora_media_node_factory_create_video_frame_sender(void)
{
    CALL(struct video_sender *);
    return calloc(1, sizeof(struct video_sender));
}

API struct video_track *agora_service_create_custom_video_track_encoded(void)
{
    CALL(struct video_track *);
    return calloc(1, sizeof(struct video_track));
}

API struct video_track *agora_service_create_custom_video_track_frame(void *service,
                                                                      struct video_sender *sender)
{
    CALL(struct video_track *);
    if (!service || !sender)
        return NULL;
    struct video_track *track = calloc(1, sizeof *track);
    lock_objects();
    sender->track = track;
    unlock_objects();
    return track;
}

API int agora_local_video_track_set_enabled(struct video_track *track, int enabled)
{
    CALL(int);
    if (!track)
        return INVALID_ARGUMENT;
    lock_objects();
    track->enabled = enabled != 0;
    unlock_objects();
    return OK;
}

API int agora_local_video_track_set_video_encoder_config(struct video_track *track,
                                                         const struct video_encoder_config *config)
{
    CALL(int);
    if (!track || !config)
        return INVALID_ARGUMENT;
    lock_objects();
    track->encoder = *config;
    track->has_encoder = true;
    if (track->publisher && track->publisher->video == track)
        send_encoder(track->publisher);
    unlock_objects();
    return OK;
}

/* ---- frames ---- */

struct picture {
    int width, height;
    size_t length;
    uint8_t *pixels; /* I420 without padding */
};

static uint8_t *copy_rows(uint8_t *to, const uint8_t *from, int stride, int width, int height)
{
    for (int row = 0; row < height; row++, from += stride, to += width)
        memcpy(to, from, (size_t)width);
    return to;
}

static int half(int size)
{
    return (size + 1) / 2;
}

/* The picture within the crop; its caller frees it. No pixels: there is none. */
static struct picture cropped(const struct external_video_frame *frame)
{
    const int left = frame->crop_left, top = frame->crop_top;
    const int chroma_stride = half(frame->stride);
    const size_t y_size = (size_t)frame->stride * (size_t)frame->height;
    const size_t chroma_size = (size_t)chroma_stride * (size_t)half(frame->height);
    const size_t chroma_start = (size_t)(top / 2) * (size_t)chroma_stride + (size_t)(left / 2);
    const uint8_t *y = frame->buffer, *u = y + y_size, *v = u + chroma_size;

    struct picture picture = {
        .width = frame->stride - left - frame->crop_right,
        .height = frame->height - top - frame->crop_bottom,
    };
    const int width = half(picture.width), height = half(picture.height);
    picture.length = (size_t)picture.width * (size_t)picture.height;
    picture.length += 2 * (size_t)width * (size_t)height;
    picture.pixels = malloc(picture.length);
    if (picture.pixels) {
        uint8_t *end = copy_rows(picture.pixels, y + (size_t)top * (size_t)frame->stride + left,
                                 frame->stride, picture.width, picture.height);
        end = copy_rows(end, u + chroma_start, chroma_stride, width, height);
        copy_rows(end, v + chroma_start, chroma_stride, width, height);
    }
    return picture;
}

static bool is_i420(const struct external_video_frame *frame)
{
    return frame->type == RAW_DATA && frame->format == I420 && frame->buffer &&
           frame->crop_left >= 0 && frame->crop_top >= 0 && frame->crop_right >= 0 &&
           frame->crop_bottom >= 0 && frame->stride > frame->crop_left + frame->crop_right &&
           frame->height > frame->crop_top + frame->crop_bottom;
}

/* Where the sender's frames go, under the lock; NULL: nowhere, as nobody could see them. */
static struct link *outlet(const struct video_sender *sender)
{
    const struct video_track *track = sender->track;
    const struct connection *connection = track && track->enabled ? track->publisher : NULL;
    if (!connection || connection->video != track || connection->state != CONNECTED)
        return NULL;
    return is_joined(connection) ? connection->link : NULL;
}

static void send_picture(struct link *link, const struct external_video_frame *frame)
{
    const struct picture picture = cropped(frame);
    if (picture.pixels && link_settles(link, RETRY_TIMEOUT_MS))
        link_send_payload(link, picture.pixels, picture.length, "frame", "iiil", picture.width,
                          picture.height, frame->rotation, frame->timestamp);
    free(picture.pixels);
}

API int agora_video_frame_sender_send(struct video_sender *sender,
                                      const struct external_video_frame *frame)
{
    CALL(int);
    if (!sender || !frame || !is_i420(frame))
        return INVALID_ARGUMENT;
    lock_objects();
    bool video = service_has_video();
    struct link *link = outlet(sender);
    unlock_objects();
    if (!video)
        return NOT_SUPPORTED;
    if (link)
        send_picture(link, frame);
    return OK;
}
