// The stream guard under an Envoy that behaves as badly as Envoy may: streams fail inside the call that starts
// them, filters are destroyed inside the call that ends a response, memory runs out, bytes come one by one.
// Compiled with sanitizers by tests/unit/test_stream_guard_fuzz.py; ends with 0 if nothing was wrong.
//
// `guard_fuzz SEED ROUNDS`
#include "stream_guard.c"

typedef struct {
  guard* filter;
  bool destroyed, ended, headers_sent, disconnected;
  uint64_t stream, number;
  uint64_t told;       // the stream whose headers were told
  bytes sent;          // what the client got
  unsigned status;
} fake;

static unsigned long long random_state;
static unsigned draw(unsigned below) {
  random_state = random_state * 6364136223846793005ull + 1442695040888963407ull;
  return (unsigned)(random_state >> 33) % below;
}

static fake now;
static unsigned failing_memory;  // one allocation in so many fails; 0: none

void* __real_realloc(void* old, size_t size);
void* __wrap_realloc(void* old, size_t size);
void* __wrap_realloc(void* old, size_t size) {
  return failing_memory && draw(failing_memory) == 0 ? NULL : __real_realloc(old, size);
}

void* __real_calloc(size_t count, size_t size);
void* __wrap_calloc(size_t count, size_t size);
void* __wrap_calloc(size_t count, size_t size) {
  return failing_memory && draw(failing_memory) == 0 ? NULL : __real_calloc(count, size);
}

#define CHECK(that)                                                         \
  do {                                                                      \
    if (!(that)) {                                                          \
      fprintf(stderr, "line %d: not so: %s\n", __LINE__, #that);            \
      abort();                                                              \
    }                                                                       \
  } while (0)

static void destroy(void) {
  if (now.destroyed) return;
  now.destroyed = true;
  now.stream = 0;
  envoy_dynamic_module_on_http_filter_destroy(now.filter);
}

static void response_ended(void) {
  CHECK(!now.ended);
  now.ended = true;
  if (draw(4)) destroy();
}

static header request[] = {{":method", 7, "POST", 4}, {":path", 5, "/v1/responses", 13}, {"accept-encoding", 15, "gzip", 4},
                           {"host", 4, "llm.mesh", 8}};

size_t ENVOY(get_headers_size)(void* envoy, int which) {
  CHECK(envoy == &now && which == REQUEST_HEADERS);
  return 4;
}
bool ENVOY(get_headers)(void* envoy, int which, header* headers) {
  CHECK(envoy == &now && which == 0 && !now.destroyed);
  memcpy(headers, request, sizeof request);
  return draw(50) != 0;
}

static text pieces[8];
static size_t piece_count;
size_t ENVOY(get_body_chunks_size)(void* envoy, int which) {
  CHECK(envoy == &now && which == RECEIVED_REQUEST_BODY);
  return piece_count;
}
bool ENVOY(get_body_chunks)(void* envoy, int which, text* chunks) {
  CHECK(envoy == &now && which == 0);
  memcpy(chunks, pieces, piece_count * sizeof *pieces);
  return true;
}

void ENVOY(set_dynamic_metadata_number)(void* envoy, text space, text key, double value) {
  CHECK(envoy == &now && !now.destroyed && space.length == 8 && key.length == 6 && value == 1);
}
void ENVOY(set_dynamic_metadata_string)(void* envoy, text space, text key, text value) {
  CHECK(envoy == &now && !now.destroyed && space.length == 8 && key.length > 0 && value.length > 0);
}

static void some_answer(unsigned steps);

int ENVOY(filter_start_http_stream)(void* envoy, uint64_t* stream, text cluster, header* headers, size_t count,
                                    text body, bool end, uint64_t timeout_ms) {
  CHECK(envoy == &now && !now.destroyed && !now.ended && end && timeout_ms == 0 && cluster.length > 0);
  for (size_t i = 0; i < count; i++) CHECK(!named(&headers[i], "accept-encoding"));
  for (size_t i = 0; i < body.length; i++) CHECK(body.at[i] == 'b');
  if (draw(10) == 0) return 1;
  now.stream = *stream = ++now.number;
  if (draw(3) == 0) some_answer(draw(6));  // inside of the call that starts it
  return STREAM_STARTED;
}
void ENVOY(filter_reset_http_stream)(void* envoy, uint64_t stream) {
  CHECK(envoy == &now);
  if (stream != now.stream) return;
  now.stream = 0;
  envoy_dynamic_module_on_http_filter_http_stream_reset(envoy, now.filter, stream, 0);
}
void ENVOY(filter_reset_stream)(void* envoy, int reason, text details) {
  CHECK(envoy == &now && !now.destroyed && reason == 0 && details.length > 0);
  now.disconnected = true;
  response_ended();
}
void ENVOY(send_response)(void* envoy, uint32_t status, header* headers, size_t count, text body, text details) {
  CHECK(envoy == &now && !now.destroyed && !now.headers_sent && count == 2 && details.length > 0);
  CHECK(headers[0].name_length == 12 && body.length > 20 && body.at[body.length - 1] == '}');
  now.status = status;
  response_ended();
}
void ENVOY(send_response_headers)(void* envoy, header* headers, size_t count, bool end) {
  CHECK(envoy == &now && !now.destroyed && !now.headers_sent && !now.ended);
  size_t bytes_seen = 0;
  for (size_t i = 0; i < count; i++)
    for (size_t j = 0; j < headers[i].value_length; j++) bytes_seen += headers[i].value[j] != 0;
  CHECK(bytes_seen > 0);
  now.headers_sent = true;
  if (end) response_ended();
  if (draw(30) == 0) destroy();  // the client has left
}
void ENVOY(send_response_data)(void* envoy, text data, bool end) {
  CHECK(envoy == &now && !now.destroyed && now.headers_sent && !now.ended);
  unsigned before = failing_memory;
  failing_memory = 0;
  CHECK(bytes_add(&now.sent, data.at, data.length));
  failing_memory = before;
  if (draw(20) == 0) envoy_dynamic_module_on_http_filter_downstream_above_write_buffer_high_watermark(envoy, now.filter);
  if (end) response_ended();
  if (draw(60) == 0) destroy();
}
void ENVOY(send_response_trailers)(void* envoy, header* trailers, size_t count) {
  CHECK(envoy == &now && !now.destroyed && now.headers_sent && trailers && count == 1);
  response_ended();
}

static const char* const lines[] = {"data: {\"x\":1}", "data: {\"finish_reason\":\"stop\"}", "data: [DONE]", ": comment",
                                    "event: response.completed", "", "", "", "data:", "data: {\"finish_reason\": null}"};
static const char* const ends[] = {"\n", "\r", "\r\n"};

static void tell_headers(bool end) {
  static header events[] = {{":status", 7, "200", 3}, {"content-type", 12, "text/event-stream; charset=utf-8", 32},
                            {"content-length", 14, "9", 1}, {PROVIDER_HEADER, 19, "one", 3}, {BEGUN_HEADER, 19, "12", 2}, {CALL_HEADER, 15, "c", 1}};
  static header other[] = {{":status", 7, "503", 3}, {"content-type", 12, "application/json", 16}};
  bool is_other = draw(5) == 0;
  envoy_dynamic_module_on_http_filter_http_stream_headers(&now, now.filter, now.stream, is_other ? other : events,
                                                          is_other ? 2 : 6, end);
}

// A copy of its own in each call, so that whoever keeps a pointer is found out.
static void tell_data(bool end) {
  char written[160] = "";
  for (unsigned i = draw(4); i > 0; i--) {
    strcat(written, lines[draw(sizeof lines / sizeof *lines)]);
    strcat(written, ends[draw(3)]);
  }
  size_t length = strlen(written), cut = length ? draw((unsigned)length + 1) : 0;
  if (draw(3) == 0) length = cut;
  char* copy = malloc(length + 1);
  CHECK(copy != NULL);
  memcpy(copy, written, length);
  if (cut > length) cut = length;
  text chunks[] = {{copy, cut}, {copy + cut, length - cut}};
  envoy_dynamic_module_on_http_filter_http_stream_data(&now, now.filter, now.stream, chunks, 2, end);
  free(copy);
}

static void tell_much(void) {
  size_t length = ((size_t)1 << 20) / (1 + draw(4));
  char* much = malloc(length);
  CHECK(much != NULL);
  memset(much, 'x', length);
  text chunk = {much, length};
  envoy_dynamic_module_on_http_filter_http_stream_data(&now, now.filter, now.stream, &chunk, 1, false);
  free(much);
}

static void tell_reset(uint64_t stream) {
  now.stream = 0;
  envoy_dynamic_module_on_http_filter_http_stream_reset(&now, now.filter, stream, 0);
}

// The stream is complete, unless the guard has begun another by then.
static void complete(uint64_t stream) {
  if (stream != now.stream) return;
  now.stream = 0;
  envoy_dynamic_module_on_http_filter_http_stream_complete(&now, now.filter, stream);
}

static void tell_end(uint64_t stream) {
  static header trailer[] = {{"t", 1, "v", 1}};
  unsigned how = draw(3);
  if (how == 0) {
    tell_reset(stream);
    return;
  }
  if (how == 1)
    tell_data(true);
  else
    envoy_dynamic_module_on_http_filter_http_stream_trailers(&now, now.filter, stream, trailer, 1);
  complete(stream);
}

// Some more of the answer of the stream under way.
static void some_answer(unsigned steps) {
  uint64_t stream = now.stream;
  if (now.told != stream) {
    now.told = stream;
    bool end = draw(20) == 0;
    if (draw(8) == 0) {
      tell_reset(stream);
      return;
    }
    tell_headers(end);
    if (end) complete(stream);
  }
  for (; steps > 0 && now.stream == stream; steps--) {
    draw(400) == 0 ? tell_much() : tell_data(false);
    if (draw(40) == 0) destroy();
  }
  if (now.stream == stream && draw(4)) tell_end(stream);
}

static void one_call(const void* config) {
  now.filter = (guard*)envoy_dynamic_module_on_http_filter_new(config, &now);
  if (now.filter == NULL) return;
  static const char body[] = "bbbbbbbbbbbbbbbb";
  envoy_dynamic_module_on_http_filter_request_headers(&now, now.filter, draw(10) == 0);
  for (unsigned i = draw(4); i > 0 && !now.destroyed; i--) {
    piece_count = draw(3);
    for (size_t j = 0; j < piece_count; j++) pieces[j] = (text){body, draw(sizeof body)};
    envoy_dynamic_module_on_http_filter_request_body(&now, now.filter, i == 1 && draw(8));
  }
  if (!now.destroyed && draw(4)) envoy_dynamic_module_on_http_filter_request_trailers(&now, now.filter);
  for (unsigned i = draw(3); i > 0 && !now.destroyed && now.stream != 0; i--) some_answer(draw(30));
  // What was sent as events ends with one: the guard's own, or the provider's.
  if (now.ended && !now.disconnected && now.sent.length > 60) {
    const char* last = now.sent.at + now.sent.length;
    if (memmem(now.sent.at, now.sent.length, "stream_broken", 13)) CHECK(last[-1] == '\n' && last[-2] == '\n');
  }
  destroy();
}

int main(int count, char** arguments) {
  CHECK(count == 3);
  random_state = strtoull(arguments[1], NULL, 10);
  static const char* const wrong[] = {"", "a", "a b", "a 1 2", " 1", "a ", "a 11111111111", "a -1", "a 0x1"};
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
    CHECK(envoy_dynamic_module_on_http_filter_config_new(NULL, text_of("x"), text_of(wrong[i])) == NULL);
  const void* config = envoy_dynamic_module_on_http_filter_config_new(NULL, text_of("x"), text_of("streams 48"));
  CHECK(config != NULL);
  for (unsigned long rounds = strtoul(arguments[2], NULL, 10); rounds > 0; rounds--) {
    failing_memory = draw(4) ? 0 : 20;
    one_call(config);
    bytes_free(&now.sent);
    now = (fake){.number = now.number};
  }
  envoy_dynamic_module_on_http_filter_config_destroy(config);
  return 0;
}
