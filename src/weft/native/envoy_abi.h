// What the stream guard uses of Envoy's ABI for dynamic modules, version v0.2.0 (Envoy 1.40).
//
// Declared here rather than taken from Envoy's abi.h: that is 10,000 lines, and this is all that we depend on.
// Envoy promises nothing between versions, so `weft.native` lets only the Envoy it was written for load it.
#ifndef WEFT_ENVOY_ABI_H
#define WEFT_ENVOY_ABI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ABI_VERSION "v0.2.0"

typedef struct {
  const char* at;
  size_t length;
} text;

typedef struct {
  const char* name;
  size_t name_length;
  const char* value;
  size_t value_length;
} header;

enum { REQUEST_HEADERS = 0, RECEIVED_REQUEST_BODY = 0 };
enum { STREAM_STARTED = 0 };
enum { CONTINUE = 0, STOP = 1, STOP_WITHOUT_BUFFER = 3 };
enum { LOCAL_RESET = 0 };

// Callbacks: the calls that Envoy takes. `envoy` is its filter, as it comes with every event.
#define ENVOY(name) envoy_dynamic_module_callback_http_##name
size_t ENVOY(get_headers_size)(void* envoy, int which);
bool ENVOY(get_headers)(void* envoy, int which, header* headers);
size_t ENVOY(get_body_chunks_size)(void* envoy, int which);
bool ENVOY(get_body_chunks)(void* envoy, int which, text* chunks);
void ENVOY(set_dynamic_metadata_number)(void* envoy, text space, text key, double value);
void ENVOY(set_dynamic_metadata_string)(void* envoy, text space, text key, text value);
int ENVOY(filter_start_http_stream)(void* envoy, uint64_t* stream, text cluster, header* headers, size_t count,
                                    text body, bool end, uint64_t timeout_ms);
void ENVOY(filter_reset_http_stream)(void* envoy, uint64_t stream);
void ENVOY(filter_reset_stream)(void* envoy, int reason, text details);
void ENVOY(send_response)(void* envoy, uint32_t status, header* headers, size_t count, text body, text details);
void ENVOY(send_response_headers)(void* envoy, header* headers, size_t count, bool end);
void ENVOY(send_response_data)(void* envoy, text data, bool end);
void ENVOY(send_response_trailers)(void* envoy, header* trailers, size_t count);

// Events: what Envoy calls here.
#define EVENT(type, name) __attribute__((visibility("default"))) type envoy_dynamic_module_on_##name

#endif
