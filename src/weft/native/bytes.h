// A buffer that grows, up to what its user allows.
#ifndef WEFT_BYTES_H
#define WEFT_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
  char* at;
  size_t length;
  size_t room;
} bytes;

// Whether there was memory for it; if not, `to` is as it was.
static bool bytes_add(bytes* to, const char* from, size_t length) {
  if (length == 0) return true;
  if (length > (size_t)-1 / 4 - to->length) return false;
  size_t needed = to->length + length;
  if (needed > to->room) {
    size_t room = to->room ? to->room : 512;
    while (room < needed) room *= 2;
    char* moved = realloc(to->at, room);
    if (moved == NULL) return false;
    to->at = moved;
    to->room = room;
  }
  memcpy(to->at + to->length, from, length);
  to->length = needed;
  return true;
}

static void bytes_drop_first(bytes* of, size_t length) {
  if (length == 0) return;
  of->length -= length;
  memmove(of->at, of->at + length, of->length);
}

static void bytes_free(bytes* what) {
  free(what->at);
  *what = (bytes){0};
}

#endif
