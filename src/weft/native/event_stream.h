// Finds where the events of a text/event-stream end, and which of them are an answer's last.
//
// Lines end with LF, CR or CRLF; an empty line ends an event. Bytes are held until their event is whole, then
// whoever asks may take them. Each byte is looked at once.
#ifndef WEFT_EVENT_STREAM_H
#define WEFT_EVENT_STREAM_H

#include "bytes.h"

typedef struct {
  bytes held;                 // not taken yet
  size_t scanned;             // of these, looked at
  size_t line;                // where the line under way begins
  size_t whole;               // where the last whole event ends
  bool after_cr;              // a LF that comes now belongs to the line before
  bool line_torn;             // the beginning of the line under way has been taken
  bool torn;                  // the beginning of the event under way has been taken
  bool has_data;              // the event under way has data: it is no mere comment
  bool finished;              // the protocol's last event was seen
  bool answered;              // a reason for the answer's end was seen
  unsigned long long events;  // whole events with data, so far
} event_stream;

static bool begins(const char* line, size_t length, const char* with) {
  size_t wanted = strlen(with);
  return length >= wanted && memcmp(line, with, wanted) == 0;
}

static bool is(const char* line, size_t length, const char* wanted) {
  return length == strlen(wanted) && memcmp(line, wanted, length) == 0;
}

// The value of a field, behind its colon and the one space that may follow it.
static const char* field_value(const char* line, size_t* length, size_t name) {
  size_t skip = name + (*length > name && line[name] == ' ');
  *length -= skip;
  return line + skip;
}

// `"finish_reason": "..."`: quotes inside of JSON strings are escaped, so no answer's text looks like it.
static bool tells_reason(const char* data, size_t length) {
  static const char key[] = "\"finish_reason\":";
  const char* found = memmem(data, length, key, sizeof key - 1);
  if (found == NULL) return false;
  const char* end = data + length;
  for (found += sizeof key - 1; found < end && *found == ' '; found++) {
  }
  return found < end && *found == '"';
}

static void look_at_data(event_stream* stream, const char* data, size_t length) {
  stream->has_data = true;
  if (is(data, length, "[DONE]") || begins(data, length, "{\"error\"")) stream->finished = true;
  if (tells_reason(data, length)) stream->answered = true;
}

static void look_at_line(event_stream* stream, const char* line, size_t length) {
  if (begins(line, length, "data:")) {
    const char* value = field_value(line, &length, 5);
    look_at_data(stream, value, length);
  } else if (begins(line, length, "event:")) {
    const char* value = field_value(line, &length, 6);
    // The last events of OpenAI's Responses.
    if (is(value, length, "response.completed") || is(value, length, "response.incomplete") ||
        is(value, length, "response.failed") || is(value, length, "error"))
      stream->finished = true;
  }
}

static void end_event(event_stream* stream, size_t end) {
  stream->whole = end;
  stream->events += stream->has_data;
  stream->has_data = stream->torn = false;
}

static void end_line(event_stream* stream, size_t end) {
  if (end == stream->line && !stream->line_torn)
    end_event(stream, end + 1);
  else if (!stream->line_torn)
    look_at_line(stream, stream->held.at + stream->line, end - stream->line);
  stream->line = end + 1;
  stream->line_torn = false;
}

// Whether there was memory for `data`.
static bool event_stream_add(event_stream* stream, const char* data, size_t length) {
  if (!bytes_add(&stream->held, data, length)) return false;
  for (; stream->scanned < stream->held.length; stream->scanned++) {
    size_t here = stream->scanned;
    char each = stream->held.at[here];
    if (each == '\n' && stream->after_cr) {
      if (stream->whole == here) stream->whole = here + 1;
      stream->line = here + 1;
    } else if (each == '\n' || each == '\r') {
      end_line(stream, here);
    }
    stream->after_cr = each == '\r';
  }
  return true;
}

// Forget the first `length` bytes, which were taken: up to `whole`, or all of them.
static void event_stream_take(event_stream* stream, size_t length) {
  bytes_drop_first(&stream->held, length);
  stream->scanned -= length;
  if (length > stream->whole) stream->torn = true;
  if (length > stream->line) stream->line_torn = true;
  stream->line = length > stream->line ? 0 : stream->line - length;
  stream->whole = length > stream->whole ? 0 : stream->whole - length;
}

static void event_stream_reset(event_stream* stream) {
  bytes held = stream->held;
  held.length = 0;
  *stream = (event_stream){.held = held};
}

#endif
