// A frame of the reader: remembers a token, and tells of the words around this moment.
#include "isa.h"
#include "linear.h"
#include "scratch.h"

namespace duologue::ISA {
namespace {

constexpr int64_t ROLES = 4, LONG_AGO = 23, STYLE_FRAMES = 12, HINTS = 4;
constexpr float FRAME_S = 0.08f, HINT_S = 0.02f, FASTEST = 0.5f;
constexpr float SLOWEST = 1.7f, SLOWEST_BEFORE_PAUSE = 1.3f;

// Rounded by itself, as the reference does it: what follows asks which of two times is later.
float product(float a, float b) { return float(double(a) * double(b)); }

int64_t within(int64_t value, int64_t low, int64_t high) {
  return value < low ? low : value > high ? high : value;
}

int64_t pick(const int64_t* values, int64_t size, int64_t index) {
  return values[within(index, 0, size - 1)];
}

int64_t filled(const int64_t* values, int64_t size) {
  int64_t count = 0;
  for (int64_t i = 0; i < size; ++i) count += values[i] > 0;
  return count;
}

// One row's words, as the state has them.
struct Words {
  int64_t *letters, *phones, *mark, *age, *style;
};

Words words_of(const Reader& args, int64_t row) {
  const int64_t words = args.words;
  return {args.letters + row * words * args.letter_count, args.phones + row * words * args.phone_count,
          args.mark + row * words, args.age + row * words, args.style + row};
}

// Moves [words, size] one place back and clears the last.
void move(int64_t* values, int64_t words, int64_t size) {
  __builtin_memmove(values, values + size, (words - 1) * size * sizeof(int64_t));
  __builtin_memset(values + (words - 1) * size, 0, size * sizeof(int64_t));
}

// The words a frame later; whether the newest is spelled anew.
bool take(const Reader& args, int64_t token, const Words& w) {
  const int64_t *letters = args.token_letters + token * args.letter_count, last = args.words - 1;
  const int64_t mark = args.token_mark[token];
  const bool grows = letters[0] > 0, is_written = grows || mark > 0;
  const bool begins = args.token_begins[token] || (is_written && w.age[last] == 0);
  for (int64_t i = 0; i <= last; ++i) w.age[i] += w.age[i] > 0;
  if (begins) {
    move(w.letters, args.words, args.letter_count);
    move(w.phones, args.words, args.phone_count);
    move(w.mark, args.words, 1);
    move(w.age, args.words, 1);
    w.age[last] = 1;
  }
  if (args.token_style[token] > 0) *w.style = args.token_style[token];
  if (mark > 0) w.mark[last] = mark;
  else if (begins) w.mark[last] = 1;
  if (grows) {
    int64_t* newest = w.letters + last * args.letter_count;
    const int64_t count = filled(newest, args.letter_count);
    for (int64_t i = count; i < args.letter_count; ++i) newest[i] = letters[i - count];
  }
  return grows;
}

// The words in their roles; 0 where there is none.
struct Around {
  const int64_t* phones[ROLES];
  int64_t mark[ROLES], since[ROLES];
  bool is_there[ROLES];
};

Around around_of(const Reader& args, const Words& w, const int64_t* nothing) {
  int64_t pending = 0;
  for (int64_t i = 0; i < args.words; ++i) pending += w.age[i] > 0 && w.age[i] <= args.lead;
  Around around;
  for (int64_t role = 0; role < ROLES; ++role) {
    const int64_t place = args.words - 1 - pending + role - 1;
    const bool is_there = place >= 0 && place < args.words && w.age[place] > 0;
    around.is_there[role] = is_there;
    around.phones[role] = is_there ? w.phones + place * args.phone_count : nothing;
    around.mark[role] = is_there ? w.mark[place] : 0;
    around.since[role] = (is_there ? w.age[place] : 0) - 1 - args.lead;
  }
  return around;
}

// When each phone of the word that is said ends [phones], if each is as long as usual.
void ends_of(const Reader& args, const int64_t* phones, float* ends_s) {
  double total = 0;
  for (int64_t i = 0; i < args.phone_count; ++i)
    ends_s[i] = float(total += args.phone_s[phones[i]]);
}

void hints_of(const Reader& args, const Around& around, float* ends_s, int64_t* hints) {
  const int64_t size = args.phone_count, since = around.since[1];
  const int64_t *before = around.phones[0], *phones = around.phones[1], *after = around.phones[2];
  const bool has_next = around.is_there[2];
  if (has_next) {
    const float gap_s = float(since - around.since[2]) * FRAME_S, usual_s = ends_s[size - 1];
    const float slowest = around.mark[1] > 1 ? SLOWEST_BEFORE_PAUSE : SLOWEST;
    const float longer = larger(gap_s / larger(usual_s, HINT_S), FASTEST);
    for (int64_t i = 0; i < size; ++i) ends_s[i] *= least(longer, slowest);
  }
  const int64_t count = filled(phones, size);
  int64_t index[HINTS];
  for (int64_t i = 0; i < HINTS; ++i) {
    const float middle = product(float(i) + 0.5f, HINT_S) - FRAME_S / 2;
    const float now_s = product(float(since), FRAME_S) + middle;
    index[i] = 0;
    for (int64_t p = 0; p < size; ++p) index[i] += ends_s[p] <= now_s && phones[p] > 0;
    const int64_t begun = has_next && around.since[2] >= -1 ? after[0] : 0;
    hints[1 + i] = index[i] < count ? pick(phones, size, index[i]) : begun;
  }
  hints[0] = index[0] > 0 ? pick(phones, size, index[0] - 1)
                          : pick(before, size, filled(before, size) - 1);
  const int64_t right = index[HINTS - 1] + 1;
  hints[HINTS + 1] = right < count ? pick(phones, size, right) : pick(after, size, right - count);
  if (!around.is_there[1]) __builtin_memset(hints, 0, (HINTS + 2) * sizeof(int64_t));
}

// Features [columns] of a row, whether there is something to be said, and what becomes of a style.
bool tell(const Reader& args, int64_t token, const Words& w, int64_t* features) {
  Scratch scratch;
  const int64_t size = args.phone_count, soon = args.lead + 1;
  int64_t* nothing = scratch.integers(size);
  __builtin_memset(nothing, 0, size * sizeof(int64_t));
  const Around around = around_of(args, w, nothing);
  for (int64_t role = 0; role < ROLES; ++role) {
    __builtin_memcpy(features, around.phones[role], size * sizeof(int64_t));
    features[size] = around.mark[role];
    features += size + 1;
  }
  for (int64_t role = 0; role < 2; ++role)
    *features++ = around.is_there[role] ? within(around.since[role], 0, LONG_AGO) + 1 : 0;
  for (int64_t role = 2; role < ROLES; ++role)
    *features++ = around.is_there[role] ? within(-around.since[role], 0, soon) : 0;
  float* ends_s = scratch.floats(size);
  ends_of(args, around.phones[1], ends_s);
  const float slow = product(ends_s[size - 1], SLOWEST) / FRAME_S;
  const int64_t most = int64_t(__builtin_ceilf(slow)) + args.tail;
  hints_of(args, around, ends_s, features);
  features[HINTS + 2] = *w.style;
  const bool is_long_over = around.since[1] == most + STYLE_FRAMES && !around.is_there[2];
  if (is_long_over && args.token_style[token] == 0) *w.style = 0;
  const bool is_next = around.is_there[2] && around.since[2] >= -args.early;
  return (around.is_there[1] && around.since[1] <= most) || is_next;
}

// The phones that the letters of a word most likely make, joined: logits [letters, 2, phones + 1]
void join_phones(const Reader& args, const int64_t* letters, const float* logits, int64_t* phones) {
  const int64_t kinds = args.output.outputs / 2;
  int64_t place = 0, before = 0;
  __builtin_memset(phones, 0, args.phone_count * sizeof(int64_t));
  for (int64_t i = 0; i < 2 * args.letter_count; ++i) {
    const float* of = logits + i * kinds;
    int64_t likeliest = 0;
    for (int64_t k = 1; k < kinds; ++k)
      if (of[k] > of[likeliest]) likeliest = k;
    if (letters[i / 2] == 0) likeliest = 0;
    if (likeliest > 0 && likeliest != before && place < args.phone_count)
      phones[place++] = likeliest;
    before = likeliest;
  }
}

// Spells the newest words of these rows [count].
void spell(const Reader& args, const int64_t* rows, int64_t count) {
  Scratch scratch;
  const int64_t size = args.letter_count, dim = args.spelling_dim, kernel = args.kernel;
  const int64_t steps = count * size, last = args.words - 1, outputs = args.output.outputs;
  float *x = scratch.floats(steps * dim), *around = scratch.floats(steps * kernel * dim);
  float *both = scratch.floats(steps * 2 * dim), *logits = scratch.floats(steps * outputs);
  const auto letters_of = [&](int64_t n) { return words_of(args, rows[n]).letters + last * size; };
  for (int64_t t = 0; t < steps; ++t) {
    const int64_t letter = letters_of(t / size)[t % size];
    if (letter > 0) __builtin_memcpy(x + t * dim, args.letter_table + letter * dim, dim * 4);
    else __builtin_memset(x + t * dim, 0, dim * 4);
  }
  for (int64_t i = 0; i < args.layer_count; ++i) {
    for (int64_t t = 0; t < steps; ++t)
      for (int64_t k = 0; k < kernel; ++k) {
        const int64_t at = t % size + k - kernel / 2;
        float* to = around + (t * kernel + k) * dim;
        if (0 <= at && at < size) __builtin_memcpy(to, x + (t / size * size + at) * dim, dim * 4);
        else __builtin_memset(to, 0, dim * 4);
      }
    linear(args.convolutions[i], around, steps, [&](int64_t row, int64_t column, Vector v) {
      const int64_t left = 2 * dim - column;
      store_some(both + row * 2 * dim + column, v + load_some(args.biases[i] + column, left), left);
    });
    for (int64_t t = 0; t < steps; ++t)
      if (letters_of(t / size)[t % size] > 0)
        for (int64_t c = 0; c < dim; c += LANES) {
          const float* value = both + t * 2 * dim + c;
          const Vector gate = 1.0f / (1.0f + exp(-load_some(value + dim, dim - c)));
          float* to = x + t * dim + c;
          store_some(to, load_some(to, dim - c) + load_some(value, dim - c) * gate, dim - c);
        }
  }
  linear(args.output, x, steps, [&](int64_t row, int64_t column, Vector v) {
    const int64_t left = outputs - column;
    store_some(logits + row * outputs + column, v + load_some(args.output_bias + column, left), left);
  });
  for (int64_t n = 0; n < count; ++n)
    join_phones(args, letters_of(n), logits + n * size * outputs,
                words_of(args, rows[n]).phones + last * args.phone_count);
}

}  // namespace

void reader_step(const Reader& args) {
  Scratch scratch;
  int64_t *grown = scratch.integers(args.lanes.count), count = 0;
  for (int64_t n = 0; n < args.lanes.count; ++n) {
    const int64_t row = args.lanes.rows[n];
    if (take(args, args.token[row], words_of(args, row))) grown[count++] = row;
  }
  if (count) spell(args, grown, count);
  const int64_t columns = ROLES * (args.phone_count + 1) + 4 + HINTS + 2 + 1;
  for (int64_t n = 0; n < args.lanes.count; ++n) {
    const int64_t row = args.lanes.rows[n];
    args.is_spoken[row] =
        tell(args, args.token[row], words_of(args, row), args.features + row * columns);
  }
}

}  // namespace duologue::ISA
