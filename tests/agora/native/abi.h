/*
 * Arguments as the Python wrapper 2.4.10 lays them out, by its own names. Callbacks that the
 * stand-in never calls are plain slots. The sizes are those of x86-64 and aarch64.
 */
#ifndef ABI_H
#define ABI_H

#include <stdint.h>

/* What functions return; Agora's error codes, negated. */
enum {
    OK = 0,
    FAILED = -1,
    INVALID_ARGUMENT = -2,
    NOT_SUPPORTED = -4,
    NOT_INITIALIZED = -7,
    INVALID_STATE = -8,
    RESOURCE_LIMITED = -22,
};

enum connection_state { DISCONNECTED = 1, CONNECTING, CONNECTED, RECONNECTING, GAVE_UP };

enum { RAW_DATA = 1, I420 = 1 }; /* a frame's type, and the only format taken */

enum { SUBSCRIBING = 2, SUBSCRIBED = 3 };
enum { PCM_16 = 0, BEFORE_MIXING = 8 }; /* a sound frame's type; a position of observers */

typedef void (*unused_callback)(void);

/* ---- configurations ---- */

struct service_config {
    int enable_audio_processor, enable_audio_device, enable_video;
    void *context;
    const char *app_id;
    uint32_t area_code;
    int channel_profile, audio_scenario, use_string_uid, domain_limit, log_level;
    const char *log_file_path;
    uint32_t log_file_size_kb;
    const char *data_dir, *config_dir;
};

struct audio_subscription_options {
    int packet_only, pcm_data_only;
    uint32_t bytes_per_sample, number_of_channels, sample_rate_hz;
};

struct rtc_conn_config {
    int auto_subscribe_audio, auto_subscribe_video, enable_audio_recording_or_playout;
    int max_send_bitrate, min_port, max_port;
    struct audio_subscription_options audio_subs_options;
    int client_role_type, channel_profile;
    int audio_recv_media_packet, audio_recv_encoded_frame, video_recv_media_packet;
};

struct video_dimensions {
    int width, height;
};

struct video_encoder_config {
    int codec_type;
    struct video_dimensions dimensions;
    int frame_rate;
    int bitrate, min_bitrate; /* bit/s */
    int orientation_mode, degradation_preference, mirror_mode, encode_alpha;
};

struct audio_encoder_config {
    int audio_profile;
};

/* ---- arguments of callbacks ---- */

struct rtc_conn_info {
    uint64_t id;
    const char *channel_id; /* the wrapper decodes both texts unasked: never NULL */
    int state;
    const char *local_user_id;
    unsigned internal_uid;
};

struct video_track_info {
    int is_local;
    unsigned owner_uid, track_id;
    const char *channel_id;
    int stream_type, codec_type, encoded_frame_only, source_type;
    uint32_t observation_position;
};

struct rtc_stats {
    unsigned connection_id, duration, tx_bytes, rx_bytes;
    unsigned tx_audio_bytes, tx_video_bytes, rx_audio_bytes, rx_video_bytes;
    unsigned short tx_k_bit_rate, rx_k_bit_rate, rx_audio_k_bit_rate, tx_audio_k_bit_rate;
    unsigned short rx_video_k_bit_rate, tx_video_k_bit_rate, lastmile_delay;
    unsigned user_count;
    double cpu_app_usage, cpu_total_usage;
    int gateway_rtt;
    double memory_app_usage_ratio, memory_total_usage_ratio;
    int memory_app_usage_in_kbytes, connect_time_ms;
    int first_audio_packet_duration, first_video_packet_duration;
    int first_video_key_frame_packet_duration, packets_before_first_key_frame_packet;
    int first_audio_packet_duration_after_unmute, first_video_packet_duration_after_unmute;
    int first_video_key_frame_packet_duration_after_unmute;
    int first_video_key_frame_decoded_duration_after_unmute;
    int first_video_key_frame_rendered_duration_after_unmute;
    int tx_packet_loss_rate, rx_packet_loss_rate;
};

/* ---- frames ---- */

struct color_space {
    int primaries_id, transfer_id, matrix_id, range_id;
};

struct external_video_frame {
    int type, format;
    const uint8_t *buffer; /* Y, U and V in one block */
    int stride, height;    /* pixels of a Y row, rows; before the crop */
    int crop_left, crop_top, crop_right, crop_bottom;
    int rotation;
    int64_t timestamp; /* ms */
    void *egl_context;
    int egl_type, texture_id;
    float matrix[16];
    const uint8_t *metadata_buffer;
    int metadata_size;
    const uint8_t *alpha_buffer;
    uint8_t fill_alpha_buffer;
    int alpha_mode;
    struct color_space color_space;
};

struct video_frame {
    int type, width, height, y_stride, u_stride, v_stride; /* strides in bytes */
    const uint8_t *y_buffer, *u_buffer, *v_buffer;
    int rotation;
    int64_t render_time_ms;
    int avsync_type;
    const uint8_t *metadata_buffer;
    int metadata_size;
    void *shared_context;
    int texture_id;
    float matrix[16];
    const uint8_t *alpha_buffer;
    int alpha_mode;
};

struct audio_frame {
    int type, samples_per_channel, bytes_per_sample, channels, samples_per_sec;
    const void *buffer;
    int64_t render_time_ms;
    int avsync_type;
    int64_t presentation_ms;
    int audio_track_number;
    uint32_t rtp_timestamp;
    int far_field_flag, rms, voice_prob, music_prob, pitch;
};

/* ---- observers ---- */

typedef void conn_callback(void *conn, const struct rtc_conn_info *info, int reason);

struct rtc_conn_observer {
    conn_callback *on_connected, *on_disconnected, *on_connecting;
    conn_callback *on_reconnecting, *on_reconnected;
    void (*on_connection_lost)(void *conn, const struct rtc_conn_info *info);
    unused_callback on_lastmile_quality, on_lastmile_probe_result;
    void (*on_token_privilege_will_expire)(void *conn, const char *token);
    void (*on_token_privilege_did_expire)(void *conn);
    unused_callback on_connection_license_validation_failure;
    conn_callback *on_connection_failure;
    void (*on_user_joined)(void *conn, const char *user);
    void (*on_user_left)(void *conn, const char *user, int reason);
    void (*on_transport_stats)(void *conn, const struct rtc_stats *stats);
    unused_callback on_change_role_success, on_change_role_failure;
    unused_callback on_user_network_quality, on_network_type_changed, on_api_call_executed;
    unused_callback on_content_inspect_result, on_snapshot_taken;
    void (*on_error)(void *conn, int error, const char *text);
    unused_callback on_warning, on_channel_media_relay_state_changed;
    unused_callback on_local_user_registered, on_user_account_updated, on_stream_message_error;
    unused_callback never_set; /* the wrapper names two slots on_encryption_error, sets the last */
    unused_callback on_upload_log_result, on_encryption_error;
};

struct local_user_observer {
    unused_callback on_audio_track_publish_success, on_audio_track_publish_start;
    unused_callback on_audio_track_unpublished, on_audio_track_publication_failure;
    unused_callback on_local_audio_track_state_changed, on_local_audio_track_statistics;
    unused_callback on_remote_audio_track_statistics;
    void (*on_user_audio_track_subscribed)(void *user, const char *remote, void *track);
    void (*on_user_audio_track_state_changed)(void *user, const char *remote, void *track,
                                              int state, int reason, int elapsed);
    void (*on_audio_subscribe_state_changed)(void *user, const char *channel, const char *remote,
                                             int old_state, int state, int elapsed);
    unused_callback on_audio_publish_state_changed;
    void (*on_first_remote_audio_frame)(void *user, const char *remote, int elapsed);
    unused_callback on_first_remote_audio_decoded;
    unused_callback on_video_track_publish_success, on_video_track_publish_start;
    unused_callback on_video_track_unpublished, on_video_track_publication_failure;
    unused_callback on_local_video_track_state_changed, on_local_video_track_statistics;
    void (*on_user_video_track_subscribed)(void *user, const char *remote,
                                           const struct video_track_info *info, void *track);
    void (*on_user_video_track_state_changed)(void *user, const char *remote, void *track,
                                              int state, int reason, int elapsed);
    unused_callback on_remote_video_track_statistics;
    unused_callback on_audio_volume_indication, on_active_speaker;
    unused_callback on_remote_video_stream_info_updated;
    unused_callback on_video_subscribe_state_changed, on_video_publish_state_changed;
    void (*on_first_remote_video_frame)(void *user, const char *remote, int width, int height,
                                        int elapsed);
    unused_callback on_first_remote_video_decoded, on_first_remote_video_frame_rendered;
    unused_callback on_video_size_changed, on_user_info_updated;
    void (*on_intra_request_received)(void *user);
    unused_callback on_remote_subscribe_fallback_to_audio_only, on_stream_message;
    unused_callback on_user_state_changed, on_audio_meta_data_received;
};

struct video_frame_observer {
    void (*on_frame)(void *user, const char *channel, const char *remote,
                     const struct video_frame *frame);
};

struct audio_frame_observer {
    unused_callback on_record_audio_frame, on_playback_audio_frame, on_mixed_audio_frame;
    unused_callback on_ear_monitoring_audio_frame;
    int (*on_playback_audio_frame_before_mixing)(void *user, const char *channel,
                                                 const char *remote,
                                                 const struct audio_frame *frame);
    int (*on_get_audio_frame_position)(void *user);
    unused_callback on_get_playback_audio_frame_param, on_get_record_audio_frame_param;
    unused_callback on_get_mixed_audio_frame_param, on_get_ear_monitoring_audio_frame_param;
};

_Static_assert(sizeof(struct service_config) == 88, "AgoraServiceConfigInner");
_Static_assert(sizeof(struct rtc_conn_config) == 64, "RTCConnConfigInner");
_Static_assert(sizeof(struct video_encoder_config) == 40, "VideoEncoderConfigurationInner");
_Static_assert(sizeof(struct rtc_conn_info) == 40, "RTCConnInfoInner");
_Static_assert(sizeof(struct external_video_frame) == 184, "ExternalVideoFrameInner");
_Static_assert(sizeof(struct video_frame) == 184, "VideoFrameInner");
_Static_assert(sizeof(struct audio_encoder_config) == 4, "AudioEncoderConfigurationInner");
_Static_assert(sizeof(struct audio_frame) == 88, "AudioFrameInner");
_Static_assert(sizeof(struct rtc_conn_observer) == 31 * sizeof(void *), "31 callbacks");
_Static_assert(sizeof(struct local_user_observer) == 37 * sizeof(void *), "37 callbacks");
_Static_assert(sizeof(struct audio_frame_observer) == 10 * sizeof(void *), "10 callbacks");

#endif
