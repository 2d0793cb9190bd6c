// The stream guard: an HTTP filter for Envoy, the last one of calls to models whose answers are streamed.
//
// A streamed answer that breaks off reaches the client as a broken connection, and most clients say no more of
// it than that. The guard opens the call's stream itself, to a cluster that leads to the routes behind it; it
// hands on what comes event by event, and when the stream breaks it says so in a last event that is well-formed.
// Until the first whole event nothing goes to the client: what breaks before is tried once more, with a header
// that names who broke off.
//
//               the request is whole            a whole event came
//     GATHERING ------------------> WAITING --------------------> RELAYING ---------> ENDED
//         |                          |  ^ |                           |  the answer ended, or it broke:
//         | larger than              |  | | not a stream of events,   |  then behind an event that says so
//         v allowed: 413             +--+ | or no answer at all       v
//       ENDED               broke, once   v                        ENDED  the client does not read: reset
//                        broke twice:  PASSING ---------> ENDED
//                          502, ENDED            the answer ended, or it broke: reset
//
// For the log, the dynamic metadata of the call get `broken` (1: it broke off midway), `failed` (the provider
// that broke off before its first event), and what headers of the answer say: `begun_us`, which is taken out, and
// `call`, the id of a call on a lease that had to ask for another provider.
//
// Envoy destroys its filter in any state, and within any call that ends the response. So every event holds the
// guard while it runs (`enter`, `leave`), and looks at the state after each such call.
//
// Bounds: the request's body is that of the configuration; an event that is not yet whole MAX_EVENT (what is
// longer is handed on in parts, and a break within it is a broken connection, as it were without the guard); and
// what Envoy keeps for a client that does not read MAX_AHEAD, beyond which the client is disconnected: the ABI
// has no way to have the provider wait. Where there is no memory, the client gets what it would after a break.
#include <stdio.h>
#include <strings.h>

#include "envoy_abi.h"
#include "event_stream.h"

#define MAX_EVENT ((size_t)1 << 20)
#define MAX_AHEAD ((size_t)4 << 20)
#define MAX_HEADERS 256
#define MAX_NAME 64
#define MAX_ERROR 512
#define ATTEMPTS 2

#define DETAILS ((text){"weft_stream_guard", 17})
#define PROVIDER_HEADER "x-weft-llm-provider"
#define RESPONSES_PATH "/v1/responses"
#define AGAIN_HEADER "x-weft-llm-again"
#define CALL_HEADER "x-weft-llm-call"
#define BEGUN_HEADER "x-weft-llm-begun-us"
#define METADATA text_of("weft.llm")

typedef struct {
  char* cluster;
  size_t max_body;
} settings;

typedef enum { GATHERING, WAITING, RELAYING, PASSING, ENDED } state;

typedef struct {
  int holders;  // Envoy, until it destroys its filter, and events under way
  state state;
  const settings* settings;
  void* envoy;
  bytes body;
  int attempts;
  uint64_t stream;  // the one under way, if not 0; what comes from others is too late
  uint64_t last;    // the youngest so far
  bool starting;    // Envoy is starting one: what it already tells of it comes before its number
  bool failed;      // and it failed meanwhile
  bytes kept;       // names and values of `answer`
  header answer[MAX_HEADERS];
  size_t answer_count;
  bool is_events;
  event_stream events;
  char provider[MAX_NAME];  // who answers, if that is known
  bool responses;           // the call is one of OpenAI's Responses, whose errors look different
  bool slow;                // the client does not read
  size_t ahead;             // bytes that Envoy was given since
} guard;

static text text_of(const char* what) { return (text){what, strlen(what)}; }

static bool named(const header* each, const char* name) {
  return each->name_length == strlen(name) && memcmp(each->name, name, each->name_length) == 0;
}

static header new_header(const char* name, const char* value) {
  return (header){name, strlen(name), value, strlen(value)};
}

// ---- Its life

static guard* enter(const void* filter) {
  guard* g = (guard*)filter;
  g->holders++;
  return g;
}

static void leave(guard* g) {
  if (--g->holders > 0) return;
  bytes_free(&g->body);
  bytes_free(&g->kept);
  bytes_free(&g->events.held);
  free(g);
}

static void forget_answer(guard* g) {
  g->answer_count = 0;
  g->kept.length = 0;
  g->is_events = false;
  event_stream_reset(&g->events);
}

// ---- What the client gets. Each of these may destroy Envoy's filter.

static void drop_stream(guard* g) {
  uint64_t stream = g->stream;
  g->stream = 0;  // first: Envoy tells of the reset at once
  if (stream != 0) ENVOY(filter_reset_http_stream)(g->envoy, stream);
}

static void disconnect(guard* g) {
  g->state = ENDED;
  ENVOY(filter_reset_stream)(g->envoy, LOCAL_RESET, DETAILS);
}

static void answer_instead(guard* g, uint32_t status, const char* body) {
  g->state = ENDED;
  header headers[] = {new_header("content-type", "application/json"),
                      new_header("x-weft-error", status == 413 ? "request_too_large" : "stream_broken")};
  ENVOY(send_response)(g->envoy, status, headers, 2, text_of(body), DETAILS);
}

static void send_headers(guard* g, bool end) {
  g->state = end ? ENDED : g->is_events ? RELAYING : PASSING;
  ENVOY(send_response_headers)(g->envoy, g->answer, g->answer_count, end);
}

static void send_data(guard* g, text data, bool end) {
  if (end) g->state = ENDED;
  if (g->slow && !end) {
    g->ahead += data.length;
    if (g->ahead > MAX_AHEAD) {
      disconnect(g);
      return;
    }
  }
  ENVOY(send_response_data)(g->envoy, data, end);
}

static void refuse_size(guard* g) {
  answer_instead(g, 413,
                 "{\"error\":{\"message\":\"the body is larger than any pool of the mesh takes\","
                 "\"type\":\"invalid_request_error\",\"param\":null,\"code\":\"request_too_large\"}}");
}

static const char* who(const guard* g, char* space, size_t size) {
  if (g->provider[0] == 0) return "the provider";
  snprintf(space, size, "provider '%s'", g->provider);
  return space;
}

static void give_up(guard* g) {
  char space[MAX_NAME + 16], body[MAX_ERROR];
  snprintf(body, sizeof body,
           "{\"error\":{\"message\":\"%s broke off before its answer began, and there is no other to try\","
           "\"type\":\"upstream_error\",\"param\":null,\"code\":\"stream_broken\"}}",
           who(g, space, sizeof space));
  answer_instead(g, 502, body);
}

static void write_error_event(const guard* g, char* event, size_t size) {
  char space[MAX_NAME + 16];
  const char* name = who(g, space, sizeof space);
  if (g->responses)
    snprintf(event, size,
             "event: error\ndata: {\"type\":\"error\",\"code\":\"stream_broken\",\"message\":\"%s broke off the "
             "answer midway: it is incomplete\",\"param\":null,\"sequence_number\":%llu}\n\n",
             name, g->events.events);
  else
    snprintf(event, size,
             "data: {\"error\":{\"message\":\"%s broke off the answer midway: it is incomplete\","
             "\"type\":\"upstream_error\",\"param\":null,\"code\":\"stream_broken\"}}\n\n",
             name);
}

static void note_broken(guard* g) {
  ENVOY(set_dynamic_metadata_number)(g->envoy, METADATA, text_of("broken"), 1);
}

static void note(guard* g, const char* key, text value) {
  ENVOY(set_dynamic_metadata_string)(g->envoy, METADATA, text_of(key), value);
}

// The end of an answer that broke off, or had a clean end without being complete.
static void end_broken(guard* g) {
  note_broken(g);
  if (g->events.torn) {
    disconnect(g);  // nothing well-formed can follow half an event
    return;
  }
  char event[MAX_ERROR];
  write_error_event(g, event, sizeof event);
  send_data(g, text_of(event), true);
}

// The end of an answer whose last event was seen, though perhaps not the empty line behind it.
static void end_finished(guard* g) {
  event_stream* events = &g->events;
  bool whole = events->whole == events->held.length;
  if (g->state == WAITING) send_headers(g, false);
  if (g->state != ENDED && events->held.length > 0)
    send_data(g, (text){events->held.at, events->held.length}, false);
  if (g->state != ENDED) send_data(g, text_of(whole ? "" : "\n\n"), true);
}

// ---- Attempts

static void broke(guard* g);

// Headers of the request, for the stream: what is sent is whole, and events are looked for in plain text.
static size_t request_headers(guard* g, header* headers, char* length_text, size_t length_room) {
  header all[MAX_HEADERS];
  size_t total = ENVOY(get_headers_size)(g->envoy, REQUEST_HEADERS), count = 0;
  if (total > MAX_HEADERS - 2 || !ENVOY(get_headers)(g->envoy, REQUEST_HEADERS, all)) return 0;
  for (size_t i = 0; i < total; i++) {
    if (named(&all[i], "accept-encoding") || named(&all[i], "content-length") ||
        named(&all[i], "transfer-encoding") || named(&all[i], AGAIN_HEADER))
      continue;
    if (named(&all[i], ":path")) g->responses = begins(all[i].value, all[i].value_length, RESPONSES_PATH);
    headers[count++] = all[i];
  }
  if (g->body.length > 0) {
    snprintf(length_text, length_room, "%zu", g->body.length);
    headers[count++] = new_header("content-length", length_text);
  }
  if (g->attempts > 1) headers[count++] = new_header(AGAIN_HEADER, g->provider[0] ? g->provider : "1");
  return count;
}

// Whether the attempt is under way, or has already brought an end.
static bool open_stream(guard* g) {
  header headers[MAX_HEADERS];
  char length_text[24];
  size_t count = request_headers(g, headers, length_text, sizeof length_text);
  if (count == 0) return false;
  forget_answer(g);
  text cluster = text_of(g->settings->cluster), body = {g->body.at, g->body.length};
  uint64_t stream = 0;
  g->state = WAITING;
  g->stream = 0;
  g->failed = false;
  g->starting = true;
  int result = ENVOY(filter_start_http_stream)(g->envoy, &stream, cluster, headers, count, body, true, 0);
  g->starting = false;
  if (g->state == ENDED) return true;
  if (result != STREAM_STARTED || g->failed) return false;
  g->stream = g->last = stream;
  return true;
}

static void try_providers(guard* g) {
  while (g->attempts < ATTEMPTS) {
    g->attempts++;
    if (open_stream(g)) return;
  }
  give_up(g);
}

// Whether it comes from the stream under way.
static bool is_current(guard* g, uint64_t stream) {
  if (g->state == ENDED || stream == 0) return false;
  if (g->starting && stream > g->last) g->stream = g->last = stream;
  return stream == g->stream;
}

// The stream under way is no more, and its answer is not complete.
static void broke(guard* g) {
  g->stream = 0;
  if (g->state == PASSING) {
    note_broken(g);
    disconnect(g);
  } else if (g->state == RELAYING) {
    g->events.finished ? end_finished(g) : end_broken(g);
  } else {
    if (g->provider[0] != 0) note(g, "failed", text_of(g->provider));
    if (g->starting)
      g->failed = true;  // whoever starts it goes on
    else
      try_providers(g);
  }
}

// ---- What comes from the stream

static void keep_provider(guard* g, const char* name, size_t length) {
  g->provider[0] = 0;
  if (length >= MAX_NAME) return;
  for (size_t i = 0; i < length; i++) {
    char each = name[i];
    bool plain = (each >= 'a' && each <= 'z') || (each >= 'A' && each <= 'Z') || (each >= '0' && each <= '9') ||
                 each == '-' || each == '_' || each == '.';
    if (!plain) return;  // it goes into JSON
  }
  memcpy(g->provider, name, length);
  g->provider[length] = 0;
}

static bool tells_events(const header* headers, size_t count) {
  static const char type[] = "text/event-stream";
  bool events = false;
  for (size_t i = 0; i < count; i++) {
    const header* each = &headers[i];
    if (named(each, ":status") && (each->value_length != 3 || each->value[0] != '2')) return false;
    if (named(each, "content-encoding") && !is(each->value, each->value_length, "identity")) return false;
    if (named(each, "content-type"))
      events = each->value_length >= sizeof type - 1 && strncasecmp(each->value, type, sizeof type - 1) == 0;
  }
  return events;
}

// Copy the headers of the answer. Whether that was possible.
static bool keep_answer(guard* g, const header* headers, size_t count) {
  size_t kept = 0;
  if (count > MAX_HEADERS) return false;
  for (size_t i = 0; i < count; i++) {
    if (!bytes_add(&g->kept, headers[i].name, headers[i].name_length) ||
        !bytes_add(&g->kept, headers[i].value, headers[i].value_length))
      return false;
  }
  const char* at = g->kept.at;  // it does not move any more
  for (size_t i = 0; i < count; i++) {
    header each = {at, headers[i].name_length, at + headers[i].name_length, headers[i].value_length};
    at += each.name_length + each.value_length;
    if (named(&each, PROVIDER_HEADER)) keep_provider(g, each.value, each.value_length);
    if (named(&each, CALL_HEADER)) note(g, "call", (text){each.value, each.value_length});
    if (named(&each, BEGUN_HEADER)) {
      note(g, "begun_us", (text){each.value, each.value_length});
    } else if (!g->is_events || !named(&each, "content-length")) {  // an event may be added to the answer
      g->answer[kept++] = each;
    }
  }
  g->answer_count = kept;
  return true;
}

static void take_headers(guard* g, const header* headers, size_t count, bool end) {
  forget_answer(g);
  g->provider[0] = 0;
  g->is_events = tells_events(headers, count);
  if (!keep_answer(g, headers, count)) {
    forget_answer(g);
    drop_stream(g);
    give_up(g);
    return;
  }
  if (g->is_events && end)
    broke(g);  // an answer without a single event is none
  else if (!g->is_events)
    send_headers(g, end);
}

static void pass_data(guard* g, const text* data, size_t count, bool end) {
  for (size_t i = 0; i < count && g->state != ENDED; i++) send_data(g, data[i], end && i + 1 == count);
  if (end && g->state != ENDED) send_data(g, text_of(""), true);
}

// Hand on what is whole; and what is not, where it grows beyond bounds.
static void relay_events(guard* g) {
  event_stream* events = &g->events;
  size_t ready = events->held.length - events->whole > MAX_EVENT || events->torn ? events->held.length : events->whole;
  if (ready == 0) return;
  if (g->state == WAITING && events->events == 0 && ready == events->whole && ready <= MAX_EVENT) return;  // comments
  if (g->state == WAITING) send_headers(g, false);
  if (g->state == ENDED) return;
  send_data(g, (text){events->held.at, ready}, false);
  if (g->state != ENDED) event_stream_take(events, ready);
}

static void end_events(guard* g) {
  event_stream* events = &g->events;
  g->stream = 0;
  if (events->held.length > events->line) event_stream_add(events, "\n", 1);  // some leave it out at the end
  if (events->finished || events->answered)
    end_finished(g);
  else
    broke(g);
}

static void take_data(guard* g, const text* data, size_t count, bool end) {
  if (!g->is_events) {
    pass_data(g, data, count, end);
    return;
  }
  for (size_t i = 0; i < count && g->state != ENDED; i++) {
    if (!event_stream_add(&g->events, data[i].at, data[i].length)) {
      drop_stream(g);
      if (g->state != ENDED) g->state == RELAYING ? end_broken(g) : give_up(g);
      return;
    }
    relay_events(g);
  }
  if (end && g->state != ENDED) end_events(g);
}

// ---- Events of the filter

static bool parse_size(const char* word, size_t* size) {
  if (*word == 0 || strlen(word) > 10) return false;
  for (*size = 0; *word; word++) {
    if (*word < '0' || *word > '9') return false;
    *size = *size * 10 + (size_t)(*word - '0');
  }
  return true;
}

EVENT(const char*, program_init)(void) { return ABI_VERSION; }

EVENT(void, http_filter_config_destroy)(const void* config) {
  settings* s = (settings*)config;
  free(s->cluster);
  free(s);
}

// `CLUSTER MAX_BODY`: where streams are opened, and bytes. Envoy refuses the configuration if it is none.
EVENT(const void*, http_filter_config_new)(void* envoy, text name, text config) {
  (void)envoy, (void)name;
  settings* s = calloc(1, sizeof *s);
  if (s == NULL) return NULL;
  s->cluster = malloc(config.length + 1);
  if (s->cluster != NULL) {
    memcpy(s->cluster, config.at, config.length);
    s->cluster[config.length] = 0;
    char* space = strchr(s->cluster, ' ');
    if (space != NULL) *space = 0;
    if (space != NULL && *s->cluster && parse_size(space + 1, &s->max_body)) return s;
  }
  envoy_dynamic_module_on_http_filter_config_destroy(s);
  return NULL;
}

EVENT(const void*, http_filter_new)(const void* config, void* envoy) {
  guard* g = calloc(1, sizeof *g);
  if (g == NULL) return NULL;
  g->holders = 1;
  g->settings = config;
  g->envoy = envoy;
  return g;
}

EVENT(void, http_filter_destroy)(const void* filter) {
  guard* g = (guard*)filter;
  g->state = ENDED;
  leave(g);
}

EVENT(int, http_filter_request_headers)(void* envoy, const void* filter, bool end) {
  (void)envoy;
  guard* g = enter(filter);
  if (end && g->state == GATHERING) try_providers(g);
  leave(g);
  return STOP;
}

static bool gather(guard* g, const text* chunk) {
  return chunk->length <= g->settings->max_body && g->body.length <= g->settings->max_body - chunk->length &&
         bytes_add(&g->body, chunk->at, chunk->length);
}

static void gather_body(guard* g) {
  size_t count = ENVOY(get_body_chunks_size)(g->envoy, RECEIVED_REQUEST_BODY);
  if (count == 0) return;
  text* chunks = calloc(count, sizeof *chunks);
  bool fits = chunks != NULL && ENVOY(get_body_chunks)(g->envoy, RECEIVED_REQUEST_BODY, chunks);
  for (size_t i = 0; i < count && fits; i++) fits = gather(g, &chunks[i]);
  free(chunks);
  if (!fits) refuse_size(g);
}

EVENT(int, http_filter_request_body)(void* envoy, const void* filter, bool end) {
  (void)envoy;
  guard* g = enter(filter);
  if (g->state == GATHERING) gather_body(g);
  if (end && g->state == GATHERING) try_providers(g);
  leave(g);
  return STOP_WITHOUT_BUFFER;
}

EVENT(int, http_filter_request_trailers)(void* envoy, const void* filter) {
  (void)envoy;
  guard* g = enter(filter);
  if (g->state == GATHERING) try_providers(g);
  leave(g);
  return STOP;
}

EVENT(void, http_filter_http_stream_headers)(void* envoy, const void* filter, uint64_t stream,
                                             const header* headers, size_t count, bool end) {
  (void)envoy;
  guard* g = enter(filter);
  if (is_current(g, stream)) take_headers(g, headers, count, end);
  leave(g);
}

EVENT(void, http_filter_http_stream_data)(void* envoy, const void* filter, uint64_t stream, const text* data,
                                          size_t count, bool end) {
  (void)envoy;
  guard* g = enter(filter);
  if (is_current(g, stream)) take_data(g, data, count, end);
  leave(g);
}

// Trailers of a stream of events mean nothing to its readers: they are its end. Others get them.
EVENT(void, http_filter_http_stream_trailers)(void* envoy, const void* filter, uint64_t stream,
                                              header* trailers, size_t count) {
  (void)envoy;
  guard* g = enter(filter);
  if (is_current(g, stream)) {
    if (g->is_events) {
      end_events(g);
    } else {
      g->state = ENDED;
      ENVOY(send_response_trailers)(g->envoy, trailers, count);
    }
  }
  leave(g);
}

EVENT(void, http_filter_http_stream_reset)(void* envoy, const void* filter, uint64_t stream, int reason) {
  (void)envoy, (void)reason;
  guard* g = enter(filter);
  if (is_current(g, stream)) broke(g);
  leave(g);
}

// These two come for a filter that has been destroyed, too: then without it.
EVENT(void, http_filter_downstream_above_write_buffer_high_watermark)(void* envoy, const void* filter) {
  (void)envoy;
  guard* g = (guard*)filter;
  if (g == NULL) return;
  g->slow = true;
  g->ahead = 0;
}

EVENT(void, http_filter_downstream_below_write_buffer_low_watermark)(void* envoy, const void* filter) {
  (void)envoy;
  guard* g = (guard*)filter;
  if (g != NULL) g->slow = false;
}

EVENT(void, http_filter_stream_complete)(void* envoy, const void* filter) {
  (void)envoy;
  guard* g = (guard*)filter;
  if (g != NULL) g->state = ENDED;
}

// ---- Events that Envoy insists on, and that mean nothing here

EVENT(void, http_filter_http_stream_complete)(void* envoy, const void* filter, uint64_t stream) {
  (void)envoy, (void)filter, (void)stream;
}

EVENT(int, http_filter_response_headers)(void* envoy, const void* filter, bool end) {
  (void)envoy, (void)filter, (void)end;
  return CONTINUE;
}

EVENT(int, http_filter_response_body)(void* envoy, const void* filter, bool end) {
  (void)envoy, (void)filter, (void)end;
  return CONTINUE;
}

EVENT(int, http_filter_response_trailers)(void* envoy, const void* filter) {
  (void)envoy, (void)filter;
  return CONTINUE;
}

EVENT(void, http_filter_http_callout_done)(void* envoy, const void* filter, uint64_t callout, int result,
                                           const header* headers, size_t count, const text* chunks,
                                           size_t chunk_count) {
  (void)envoy, (void)filter, (void)callout, (void)result;
  (void)headers, (void)count, (void)chunks, (void)chunk_count;
}

EVENT(void, http_filter_scheduled)(void* envoy, const void* filter, uint64_t event) {
  (void)envoy, (void)filter, (void)event;
}

EVENT(int, http_filter_local_reply)(void* envoy, const void* filter, uint32_t status, text details, bool reset) {
  (void)envoy, (void)filter, (void)status, (void)details, (void)reset;
  return CONTINUE;
}
