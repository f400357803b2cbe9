"""What passes between the stand-in library, the hub, the swap engine and the tests.

A connection is a Unix stream socket to the path in the environment's AGORA_HUB. A message is
one ASCII line, words between single spaces, ended by a line feed, then a payload. The last
word is the payload's length in bytes (0: none). A word that is text is percent-encoded as by
`urllib.parse.quote(text, safe="")`; the empty text is a lone "%". The first message says who
speaks:

    service PID APP_ID PROFILE SCENARIO STRING_UID VIDEO 0      a service was initialised
    join APP_ID CHANNEL UID TOKEN ROLE 0                       somebody connects to a channel
    control 0                                                  a test

After `service` the hub answers any number of `hang`, `fail` lines and then `inited RETURN 0`;
the library returns RETURN (0: ok) from agora_service_initialize. On the same socket it later
sends, one way:

    call NAME THREAD IN_CALLBACK SERVICE_PID 0      every API function called (NAME without "agora_"),
                                                   THREAD is gettid(), IN_CALLBACK 0 or 1

and the hub may send at any time

    hang NAME 0              from now on calls of agora_NAME never return
    fail NAME RETURN 0       from now on calls of agora_NAME return RETURN and do nothing
    abort 0 | segv 0         end the process by SIGABRT / by a write to address 0

After `join` (sent at agora_rtc_conn_connect; what was set before, publish, subscribe, encoder,
follows at once) the member sends

    publish KIND 0 | unpublish KIND 0        KIND is video or audio
    subscribe UID 0 | unsubscribe UID 0      video
    intra UID 0                              asks for a key frame
    renew TOKEN 0
    encoder WIDTH HEIGHT FPS BITRATE MIN_BITRATE CODEC 0          bit/s
    frame WIDTH HEIGHT ROTATION TIMESTAMP LENGTH                  payload: I420, no padding
    leave 0                                  agora_rtc_conn_disconnect; hub answers `disconnected 5`

and the hub sends, each an observer's callback in the library:

    connecting REASON 0 | connected REASON UID 0 | disconnected REASON 0
    reconnecting REASON 0 | reconnected REASON 0 | lost 0 | failed REASON 0
    error CODE TEXT 0 | will_expire TOKEN 0 | did_expire 0
    joined UID 0 | left UID REASON 0
    video_subscribed UID 0 | video_state UID STATE REASON 0 | first_picture UID WIDTH HEIGHT 0
    intra_wanted 0
    stats TX_VIDEO_KBIT RX_VIDEO_KBIT RTT_MS TX_LOSS_PERCENT RX_LOSS_PERCENT 0
    frame UID WIDTH HEIGHT Y_STRIDE U_STRIDE V_STRIDE ROTATION RENDER_MS LENGTH
                             payload: Y plane (Y_STRIDE * HEIGHT bytes), then U, then V
                             (STRIDE * ceil(HEIGHT / 2) bytes each)
"""
