/* The sums of a tree ensemble's leaves, added up as the library that grew the trees adds them.
 *
 * A walk waits for memory: a node tells which node comes next. So sixteen walks run side by side, of one row through
 * sixteen trees or of sixteen rows through one tree, whose loads do not wait for each other. The two nodes below a node
 * lie side by side and a leaf leads to itself, so a step has no branch that the processor could predict wrongly.
 *
 * Where rows are rounded to float32 a node has 8 bytes, else 16. Nodes that split on categories are of the second kind,
 * and trees with such nodes are walked with branches.
 *
 * Sums are float64, or float32 where the library's are (XGBoost), in the order of the trees, so that they are the
 * library's to the last bit. `link` calls the C library's exp and expf, as SciPy, LightGBM and XGBoost do.
 */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000 /* buffers came to it with Python 3.11 */
#include <Python.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define LANES 16
/* rows that are taken through all trees before the next ones: their features and sums stay in the nearest caches */
#define BLOCK 256
/* trees times rows from which on other threads of Python may run meanwhile */
#define RELEASE 4000
#define MAX_SCORES 4096
/* up to so many steps it is cheaper not to ask whether a walk has ended */
#define SHALLOW 8
/* a leaf's row of values is the payload of a NaN in its threshold, which no feature is greater than */
#define NAN_32 0x7FC00000u
#define PAYLOAD_32 0x3FFFFFu
#define NAN_64 0x7FF8000000000000ull
/* bits of `flags`, as tree_file.py has them */
enum { NAN_LEFT = 1, CATEGORICAL = 2, LOW_LEFT = 4, HIGH_LEFT = 8 };
/* bits of a wide node's `feature`, below the feature's number */
enum { NAN_RIGHT = 1, BY_CATEGORY = 2, FEATURE_SHIFT = 2 };
/* categories from here on are read as negative ones are: src/common/categorical.h of XGBoost, OutOfRangeCat */
#define MAX_CATEGORY 16777216.0
/* LightGBM reads a value no further from 0 than this as 0: include/LightGBM/meta.h, kZeroThreshold */
#define ZERO 1e-35f

typedef struct {
    float threshold; /* a row goes left unless its feature is greater */
    uint32_t ref;    /* from the top: the left node below, counted from the root; the feature; whether NaN goes right */
} Narrow;

/* where in `ref` the node below begins, and what is then the feature's */
#define REF_SHIFT 12
#define REF_FEATURE 0x7FFu

typedef struct {
    double threshold;
    uint32_t below;
    uint32_t feature;
} Wide;

typedef struct {
    int64_t start, n; /* where its bits begin, in bytes, and how many they are */
    double low;       /* a value that is not greater is below all categories */
    int flags;
} Split;

/* The arrays of an ensemble, as `Trees` takes them; see tree_file.py. From TARGET on they are kept as they are. */
enum {
    ROOTS, LEFT, RIGHT, FEATURE, THRESHOLD, FLAGS, ITEM,
    TARGET, VALUES, BASE, CATEGORY_STARTS, CATEGORIES,
    LINEAR_STARTS, LINEAR_FEATURE, LINEAR_SLOPE, LINEAR_MISSING, ZEROS, CODE_STARTS, CODES, N_ARRAYS
};
static const struct {
    const char *kinds;
    Py_ssize_t size;
} ARRAYS[N_ARRAYS] = {
    {"qln", 8}, {"il", 4}, {"il", 4}, {"il", 4}, {"d", 8}, {"B", 1}, {"il", 4},
    {"il", 4}, {"d", 8}, {"d", 8}, {"qln", 8}, {"B", 1},
    {"qln", 8}, {"il", 4}, {"d", 8}, {"d", 8}, {"B", 1}, {"qln", 8}, {"d", 8},
};

typedef struct {
    PyObject_HEAD
    Py_ssize_t n_features, n_scores, n_trees, width; /* width: values of a leaf */
    int rounds, single, narrow;
    int plain, is_sum; /* features are rounded at most; a leaf is one number, added in float64 */
    double missing, divisor;
    size_t *roots;
    unsigned char *by_category; /* whether a tree splits on categories */
    int *depth;
    void *nodes;
    Split *splits;
    void *array[N_ARRAYS];
    Py_ssize_t length[N_ARRAYS];
} Trees;

#define OF(self, type, name) ((const type *)(self)->array[name])

/* --- one step of a walk */

INLINE uint32_t step_narrow(const Narrow *tree, uint32_t at, const float *row, int gaps) {
    const Narrow node = tree[at];
    const float value = row[node.ref >> 1 & REF_FEATURE];
    const uint32_t right = value > node.threshold;
    return (node.ref >> REF_SHIFT) + (gaps ? right | ((value != value) & node.ref & 1) : right);
}

INLINE uint32_t step_wide(const Wide *tree, uint32_t at, const double *row, int gaps) {
    const Wide *node = tree + at;
    const double value = row[node->feature >> FEATURE_SHIFT];
    const uint32_t right = value > node->threshold;
    return node->below + (gaps ? right | ((value != value) & node->feature & 1) : right);
}

static uint64_t payload(double threshold) {
    uint64_t bits;
    memcpy(&bits, &threshold, sizeof bits);
    return bits & ~NAN_64;
}

static uint32_t step_by_category(const Trees *self, const Wide *tree, uint32_t at, const double *row) {
    const Wide *node = tree + at;
    const double value = row[node->feature >> FEATURE_SHIFT];
    if (value != value) return node->below + (node->feature & NAN_RIGHT);
    if (!(node->feature & BY_CATEGORY)) return node->below + (value > node->threshold);
    const Split *split = self->splits + payload(node->threshold);
    if (!(value > split->low && value > -1.0) || value >= MAX_CATEGORY) return node->below + !(split->flags & LOW_LEFT);
    if (value >= (double)split->n) return node->below + !(split->flags & HIGH_LEFT);
    const int64_t category = (int64_t)value; /* towards 0, as the libraries do */
    return node->below + !(OF(self, unsigned char, CATEGORIES)[split->start + category / 8] >> (category % 8) & 1);
}

/* --- the walks: sixteen of them, of one row through sixteen trees (`across`) or of sixteen rows through one tree */

/* One step of each; whether any of them moved. */
INLINE uint32_t step(int narrow, int gaps, int across, const char *const *from, const void *with, uint32_t *at) {
    uint32_t moved = 0;
    for (int i = 0; i < LANES; i++) {
        const void *tree = across ? from[i] : with, *row = across ? with : from[i];
        const uint32_t next = narrow ? step_narrow(tree, at[i], row, gaps) : step_wide(tree, at[i], row, gaps);
        moved |= next ^ at[i];
        at[i] = next;
    }
    return moved;
}

/* `depth`: steps from a root to the furthest leaf. */
INLINE void walk(int narrow, int gaps, int across, int depth, const char *const *from, const void *with, uint32_t *at) {
    for (int i = 0; i < LANES; i++) at[i] = 0;
    if (depth <= SHALLOW) {
        for (int i = 0; i < depth; i++) step(narrow, gaps, across, from, with, at);
        return;
    }
    do step(narrow, gaps, across, from, with, at); /* to ask after every second one is cheaper */
    while (step(narrow, gaps, across, from, with, at));
}

static void walk_by_category(const Trees *self, int across, const char *const *from, const void *with, uint32_t *at) {
    uint32_t moved;
    for (int i = 0; i < LANES; i++) at[i] = 0;
    do {
        moved = 0;
        for (int i = 0; i < LANES; i++) {
            const void *tree = across ? from[i] : with, *row = across ? with : from[i];
            const uint32_t next = step_by_category(self, tree, at[i], row);
            moved |= next ^ at[i];
            at[i] = next;
        }
    } while (moved);
}

INLINE void walk_any(const Trees *self, int by_category, int gaps, int across, int depth, const char *const *from,
                     const void *with, uint32_t *at) {
    if (by_category) walk_by_category(self, across, from, with, at);
    else if (self->narrow && gaps) walk(1, 1, across, depth, from, with, at);
    else if (self->narrow) walk(1, 0, across, depth, from, with, at);
    else if (gaps) walk(0, 1, across, depth, from, with, at);
    else walk(0, 0, across, depth, from, with, at);
}

static size_t leaf_of(const Trees *self, Py_ssize_t tree, uint32_t at) {
    if (self->narrow) {
        uint32_t bits;
        memcpy(&bits, &((const Narrow *)self->nodes)[self->roots[tree] + at].threshold, sizeof bits);
        return bits & PAYLOAD_32;
    }
    return payload(((const Wide *)self->nodes)[self->roots[tree] + at].threshold);
}

/* Tree::Predict of LightGBM, include/LightGBM/tree.h: a linear leaf, or a constant where a feature is missing */
static double linear(const Trees *self, size_t leaf, const double *row) {
    const int64_t *starts = OF(self, int64_t, LINEAR_STARTS);
    double sum = OF(self, double, VALUES)[leaf];
    for (int64_t i = starts[leaf]; i < starts[leaf + 1]; i++) {
        const double value = row[OF(self, int32_t, LINEAR_FEATURE)[i]];
        if (value != value) return OF(self, double, LINEAR_MISSING)[leaf];
        sum += OF(self, double, LINEAR_SLOPE)[i] * value;
    }
    return sum;
}

INLINE void add(const Trees *self, Py_ssize_t tree, uint32_t at, const void *row, double *sums) {
    const size_t leaf = leaf_of(self, tree, at);
    const double *values = OF(self, double, VALUES) + leaf * (size_t)self->width;
    sums += OF(self, int32_t, TARGET)[tree];
    if (self->is_sum) *sums += *values;
    else if (self->single && self->width == 1) *sums = (double)((float)*sums + (float)*values);
    else if (self->single)
        for (Py_ssize_t i = 0; i < self->width; i++) sums[i] = (double)((float)sums[i] + (float)values[i]);
    else if (self->length[LINEAR_STARTS]) *sums += linear(self, leaf, row);
    else
        for (Py_ssize_t i = 0; i < self->width; i++) sums[i] += values[i];
}

/* --- rows before the trees */

/* The number of a category among the sorted ones of its feature; NaN where it is none of them. */
static double code_of(const double *codes, int64_t n, double value) {
    int64_t low = 0, high = n;
    while (low < high) {
        const int64_t middle = low + (high - low) / 2;
        if (codes[middle] < value) low = middle + 1;
        else high = middle;
    }
    return low < n && codes[low] == value ? (double)low : NAN;
}

static double prepared(const Trees *self, Py_ssize_t feature, double value) {
    if (self->length[CODES]) {
        const int64_t *starts = OF(self, int64_t, CODE_STARTS) + feature;
        if (starts[1] > starts[0]) value = code_of(OF(self, double, CODES) + starts[0], starts[1] - starts[0], value);
    }
    if (self->length[ZEROS] && OF(self, unsigned char, ZEROS)[feature] && fabs(value) <= (double)ZERO)
        value = OF(self, unsigned char, ZEROS)[feature] == 1 ? NAN : 0.0;
    if (self->rounds) value = (double)(float)value;
    return value == self->missing ? NAN : value;
}

/* Copy one row as the trees take it; whether anything is missing. */
static int prepare(const Trees *self, const double *X, void *row) {
    int missing = 0;
    if (self->plain && self->narrow)
        for (Py_ssize_t j = 0; j < self->n_features; j++) {
            const float value = (float)X[j];
            ((float *)row)[j] = value;
            missing |= value != value;
        }
    else
        for (Py_ssize_t j = 0; j < self->n_features; j++) {
            const double value = self->plain && !self->rounds ? X[j] : prepared(self, j, X[j]);
            missing |= value != value;
            if (self->narrow) ((float *)row)[j] = (float)value;
            else ((double *)row)[j] = value;
        }
    return missing;
}

/* --- sums */

static const char *root_of(const Trees *self, Py_ssize_t tree) {
    return (const char *)self->nodes + self->roots[tree] * (self->narrow ? sizeof(Narrow) : sizeof(Wide));
}

/* A few rows through all trees, each through sixteen trees at a time. */
static void sum_across(const Trees *self, const char *const *rows, Py_ssize_t n, int gaps, double *sums) {
    const char *tree[LANES];
    uint32_t at[LANES];
    for (Py_ssize_t first = 0; first < self->n_trees; first += LANES) {
        const int count = self->n_trees - first < LANES ? (int)(self->n_trees - first) : LANES;
        int by_category = 0, depth = 0;
        for (int i = 0; i < LANES; i++) tree[i] = root_of(self, i < count ? first + i : first);
        for (int i = 0; i < count; i++) {
            by_category |= self->by_category[first + i];
            depth = self->depth[first + i] > depth ? self->depth[first + i] : depth;
        }
        for (Py_ssize_t row = 0; row < n; row++) {
            walk_any(self, by_category, gaps, 1, depth, tree, rows[row], at);
            for (int i = 0; i < count; i++) add(self, first + i, at[i], rows[row], sums + row * self->n_scores);
        }
    }
}

/* A block of rows through one tree after the other, sixteen at a time; `rows` is filled up to a multiple of sixteen. */
static void sum_along(const Trees *self, const char *const *rows, Py_ssize_t n, int gaps, double *sums) {
    uint32_t at[LANES];
    for (Py_ssize_t t = 0; t < self->n_trees; t++) {
        const char *tree = root_of(self, t);
        for (Py_ssize_t first = 0; first < n; first += LANES) {
            const int count = n - first < LANES ? (int)(n - first) : LANES;
            walk_any(self, self->by_category[t], gaps, 0, self->depth[t], rows + first, tree, at);
            for (int i = 0; i < count; i++) add(self, t, at[i], rows[first + i], sums + (first + i) * self->n_scores);
        }
    }
}

/* `n` rows, at most BLOCK; `copy` has room for them as the trees take them. */
static void score_block(const Trees *self, const double *X, Py_ssize_t n, char *copy, double *out) {
    const size_t stride = (size_t)self->n_features * (self->narrow ? sizeof(float) : sizeof(double));
    const Py_ssize_t k = self->n_scores;
    const char *rows[BLOCK];
    int gaps = 0;
    for (Py_ssize_t i = 0; i < n; i++) {
        rows[i] = copy + (size_t)i * stride;
        gaps |= prepare(self, X + i * self->n_features, copy + (size_t)i * stride);
        memcpy(out + i * k, self->array[BASE], (size_t)k * sizeof *out);
    }
    for (Py_ssize_t i = n; i < BLOCK && i % LANES; i++) rows[i] = copy;
    (n < LANES ? sum_across : sum_along)(self, rows, n, gaps, out);
    if (self->divisor != 1.0)
        for (Py_ssize_t i = 0; i < n * k; i++) out[i] /= self->divisor;
}

/* A buffer of C-contiguous items of one kind and `ndim` dimensions; 0 where it is, else -1 with an error set. */
static int get(PyObject *object, Py_buffer *view, const char *kinds, Py_ssize_t size, int ndim, int flags) {
    if (PyObject_GetBuffer(object, view, flags | PyBUF_C_CONTIGUOUS | PyBUF_FORMAT) < 0) return -1;
    const char *format = view->format ? view->format : "B";
    if (view->itemsize == size && view->ndim == ndim && format[0] && !format[1] && strchr(kinds, format[0])) return 0;
    PyBuffer_Release(view);
    PyErr_Format(PyExc_TypeError, "expected %d dimension(s) of items '%c', of %zd bytes each", ndim, kinds[0], size);
    return -1;
}

static PyObject *Trees_score(PyObject *object, PyObject *args) {
    const Trees *self = (const Trees *)object;
    PyObject *rows, *sums, *result = NULL;
    Py_buffer X, out;
    double few[256];
    char *block = (char *)few;
    if (!PyArg_ParseTuple(args, "OO:score", &rows, &sums)) return NULL;
    if (get(rows, &X, "d", 8, 2, 0) < 0) return NULL;
    if (get(sums, &out, "d", 8, 2, PyBUF_WRITABLE) < 0) {
        PyBuffer_Release(&X);
        return NULL;
    }
    const Py_ssize_t n = X.shape[0], width = self->n_features, k = self->n_scores;
    if (X.shape[1] != width || out.shape[0] != n || out.shape[1] != k) {
        PyErr_Format(PyExc_ValueError, "rows must have %zd features, and sums %zd columns", width, k);
        goto done;
    }
    const size_t bytes = (size_t)(n < BLOCK ? n : BLOCK) * (size_t)width * sizeof *few;
    if (bytes > sizeof few) block = malloc(bytes);
    if (!block) {
        PyErr_NoMemory();
        goto done;
    }
    PyThreadState *state = n * self->n_trees >= RELEASE ? PyEval_SaveThread() : NULL;
    for (Py_ssize_t first = 0; first < n; first += BLOCK) {
        const Py_ssize_t count = n - first < BLOCK ? n - first : BLOCK;
        score_block(self, (const double *)X.buf + first * width, count, block, (double *)out.buf + first * k);
    }
    if (state) PyEval_RestoreThread(state);
    if (block != (char *)few) free(block);
    result = Py_NewRef(Py_None);
done:
    PyBuffer_Release(&X);
    PyBuffer_Release(&out);
    return result;
}

/* --- from the arrays to nodes */

static int bad(const char *what) {
    PyErr_SetString(PyExc_ValueError, what);
    return -1;
}

/* Put a node where the walks find it: a leaf with `item` its row of values, or a branch with the left node below. */
static void put(Trees *self, size_t where, uint32_t to, int is_leaf, uint32_t below, const Py_buffer *given,
                int64_t from) {
    const uint32_t item = (uint32_t)((const int32_t *)given[ITEM].buf)[from];
    const unsigned flags = ((const unsigned char *)given[FLAGS].buf)[from];
    const uint32_t feature = is_leaf ? 0 : (uint32_t)((const int32_t *)given[FEATURE].buf)[from];
    const uint32_t nan_right = !is_leaf && !(flags & NAN_LEFT);
    const double threshold = ((const double *)given[THRESHOLD].buf)[from];
    const uint64_t wide_bits = NAN_64 | item;
    const uint32_t narrow_bits = NAN_32 | item;
    if (is_leaf) below = to;
    if (self->narrow) {
        Narrow *node = (Narrow *)self->nodes + where + to;
        /* the greatest float32 that is at most the threshold parts the same numbers */
        float rounded = (float)threshold;
        if ((double)rounded > threshold) rounded = nextafterf(rounded, -INFINITY);
        node->threshold = rounded;
        if (is_leaf) memcpy(&node->threshold, &narrow_bits, sizeof narrow_bits);
        node->ref = below << REF_SHIFT | feature << 1 | nan_right;
        return;
    }
    Wide *node = (Wide *)self->nodes + where + to;
    const int by_category = !is_leaf && flags & CATEGORICAL;
    node->threshold = threshold;
    if (is_leaf || by_category) memcpy(&node->threshold, &wide_bits, sizeof wide_bits);
    node->below = below;
    node->feature = feature << FEATURE_SHIFT | nan_right | (by_category ? BY_CATEGORY : 0);
    if (by_category) {
        const int64_t *starts = OF(self, int64_t, CATEGORY_STARTS) + item;
        self->splits[item] = (Split){starts[0], 8 * (starts[1] - starts[0]), threshold, (int)flags};
    }
}

/* Lay one tree out from `start` on, its root first. How many places it takes, 0 where narrow nodes cannot hold it, or -1
 * with an error set. */
static Py_ssize_t lay_out(Trees *self, const Py_buffer *given, Py_ssize_t tree, size_t start, Py_ssize_t room,
                          int64_t *stack) {
    const int32_t *left = given[LEFT].buf, *right = given[RIGHT].buf, *feature = given[FEATURE].buf;
    const int32_t *item = given[ITEM].buf;
    const unsigned char *flags = given[FLAGS].buf;
    const int64_t n_nodes = given[LEFT].shape[0], n_splits = self->length[CATEGORY_STARTS] - 1;
    const int64_t n_leaves = self->length[VALUES] / self->width;
    const int64_t most = self->narrow ? (int64_t)1 << (32 - REF_SHIFT) : INT32_MAX;
    /* one place is left out, so that two nodes side by side lie in one line of the cache */
    Py_ssize_t used = 2, waiting = 1;
    if (room < used) return bad("the nodes do not form trees");
    /* what waits: where a node was, where it goes, and how deep */
    stack[0] = ((const int64_t *)given[ROOTS].buf)[tree], stack[1] = 0, stack[2] = 0;
    while (waiting) {
        waiting--;
        const int64_t from = stack[3 * waiting], to = stack[3 * waiting + 1], depth = stack[3 * waiting + 2];
        if (from < 0 || from >= n_nodes) return bad("the nodes do not form trees");
        if (depth > self->depth[tree]) self->depth[tree] = (int)depth;
        if (left[from] < 0) {
            if (item[from] < 0 || item[from] >= n_leaves) return bad("a leaf has values that there are not");
            put(self, start, (uint32_t)to, 1, 0, given, from);
            continue;
        }
        if (feature[from] < 0 || feature[from] >= self->n_features)
            return bad("a node asks for a feature that there is not");
        if (flags[from] & CATEGORICAL) {
            if (item[from] < 0 || item[from] >= n_splits) return bad("a node has categories that there are not");
            self->by_category[tree] = 1;
        }
        if (used + 2 > room) return bad("the nodes do not form trees"); /* a node below two others */
        if (used + 2 > most) return self->narrow ? 0 : bad("a tree has too many nodes");
        put(self, start, (uint32_t)to, 0, (uint32_t)used, given, from);
        int64_t *next = stack + 3 * waiting;
        next[0] = right[from], next[1] = used + 1, next[2] = depth + 1;
        next[3] = left[from], next[4] = used, next[5] = depth + 1;
        waiting += 2, used += 2;
    }
    return used;
}

/* Lay all trees out; 0, or 1 where narrow nodes cannot hold them, or -1 with an error set. */
static int lay_out_all(Trees *self, const Py_buffer *given, int64_t *stack) {
    const Py_ssize_t room = given[LEFT].shape[0] + self->n_trees;
    Py_ssize_t used = 0;
    free(self->nodes);
    self->nodes = calloc((size_t)room, self->narrow ? sizeof(Narrow) : sizeof(Wide));
    if (!self->nodes) {
        PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t i = 0; i < self->n_trees; i++) {
        const Py_ssize_t more = lay_out(self, given, i, (size_t)used, room - used, stack);
        if (more <= 0) return more < 0 ? -1 : 1;
        self->roots[i] = (size_t)used;
        used += more;
    }
    return 0;
}

/* Whether `starts` holds `count` spans of `length` items, one after the other. */
static int are_spans(const Trees *self, int starts, Py_ssize_t count, Py_ssize_t length) {
    const int64_t *at = self->array[starts];
    if (self->length[starts] != count + 1 || at[0] != 0 || at[count] != length) return 0;
    for (Py_ssize_t i = 0; i < count; i++)
        if (at[i] > at[i + 1]) return 0;
    return 1;
}

/* Whether every number in the arrays leads to a place that there is; -1 with an error set where not. */
static int check(const Trees *self, const Py_buffer *given) {
    const Py_ssize_t n_nodes = given[LEFT].shape[0], *length = self->length;
    for (int i = RIGHT; i <= ITEM; i++)
        if (given[i].shape[0] != n_nodes) return bad("the arrays of the nodes are of uneven length");
    if (n_nodes < 1 || n_nodes > INT32_MAX || self->n_features < 1 || self->n_features >= 1 << 28 || self->n_trees < 1 ||
        self->n_trees > INT32_MAX || self->width < 1 || self->n_scores < self->width || self->n_scores > MAX_SCORES ||
        length[VALUES] % self->width || length[VALUES] > INT32_MAX || length[TARGET] != self->n_trees)
        return bad("an ensemble has trees, nodes, features and scores, and a score for each tree");
    for (Py_ssize_t i = 0; i < self->n_trees; i++)
        if (OF(self, int32_t, TARGET)[i] < 0 || OF(self, int32_t, TARGET)[i] > self->n_scores - self->width)
            return bad("a tree adds to a score that there is not");
    if (!length[CATEGORY_STARTS] || !are_spans(self, CATEGORY_STARTS, length[CATEGORY_STARTS] - 1, length[CATEGORIES]))
        return bad("the categories of the splits do not fit together");
    if (length[LINEAR_STARTS]) {
        if (self->width != 1 || self->single || length[LINEAR_MISSING] != length[VALUES] ||
            length[LINEAR_SLOPE] != length[LINEAR_FEATURE] ||
            !are_spans(self, LINEAR_STARTS, length[VALUES], length[LINEAR_FEATURE]))
            return bad("the linear leaves do not fit together");
        for (Py_ssize_t i = 0; i < length[LINEAR_FEATURE]; i++)
            if (OF(self, int32_t, LINEAR_FEATURE)[i] < 0 || OF(self, int32_t, LINEAR_FEATURE)[i] >= self->n_features)
                return bad("a leaf asks for a feature that there is not");
    }
    if (length[ZEROS] && length[ZEROS] != self->n_features) return bad("the zeros of the features are of uneven length");
    if (length[CODES] && !are_spans(self, CODE_STARTS, self->n_features, length[CODES]))
        return bad("the codes of the features do not fit together");
    return 0;
}

static int fill(Trees *self, const Py_buffer *given) {
    for (int i = TARGET; i < N_ARRAYS; i++) {
        self->length[i] = given[i].shape[0];
        self->array[i] = malloc((size_t)given[i].len + 1);
        if (!self->array[i]) goto no_memory;
        memcpy(self->array[i], given[i].buf, (size_t)given[i].len);
    }
    self->n_trees = given[ROOTS].shape[0], self->n_scores = self->length[BASE];
    if (check(self, given) < 0) return -1;
    self->plain = !self->length[ZEROS] && !self->length[CODES] && self->missing != self->missing;
    self->is_sum = self->width == 1 && !self->single && !self->length[LINEAR_STARTS];
    self->narrow = self->rounds && self->length[CATEGORY_STARTS] == 1 && !self->length[LINEAR_STARTS] &&
                   self->n_features <= (Py_ssize_t)REF_FEATURE + 1 &&
                   self->length[VALUES] / self->width <= (Py_ssize_t)PAYLOAD_32;
    const size_t places = (size_t)given[LEFT].shape[0] + (size_t)self->n_trees;
    /* three numbers for each node that waits, of which there are never more than nodes */
    int64_t *stack = malloc((places + 2) * 3 * sizeof *stack);
    self->roots = malloc((size_t)self->n_trees * sizeof *self->roots);
    self->by_category = calloc((size_t)self->n_trees, 1);
    self->depth = calloc((size_t)self->n_trees, sizeof *self->depth);
    self->splits = calloc((size_t)self->length[CATEGORY_STARTS], sizeof *self->splits);
    if (!stack || !self->roots || !self->by_category || !self->depth || !self->splits) {
        free(stack);
        goto no_memory;
    }
    int result = lay_out_all(self, given, stack);
    if (result > 0) {
        self->narrow = 0;
        result = lay_out_all(self, given, stack);
    }
    free(stack);
    return result;
no_memory:
    PyErr_NoMemory();
    return -1;
}

static PyObject *Trees_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    PyObject *objects;
    Py_buffer given[N_ARRAYS];
    Py_ssize_t n_features, width;
    double missing, divisor;
    int taken = 0, rounds, single;
    if (kwargs && PyDict_Size(kwargs)) return PyErr_Format(PyExc_TypeError, "Trees takes no keywords");
    if (!PyArg_ParseTuple(args, "nnppddO:Trees", &n_features, &width, &rounds, &single, &missing, &divisor, &objects))
        return NULL;
    if (!PyTuple_Check(objects) || PyTuple_Size(objects) != N_ARRAYS)
        return PyErr_Format(PyExc_TypeError, "Trees takes %d arrays", N_ARRAYS);
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Trees *self = (Trees *)allocate(type, 0);
    if (!self) return NULL;
    self->n_features = n_features, self->width = width, self->rounds = rounds, self->single = single;
    self->missing = missing, self->divisor = divisor;
    for (; taken < N_ARRAYS; taken++)
        if (get(PyTuple_GetItem(objects, taken), &given[taken], ARRAYS[taken].kinds, ARRAYS[taken].size, 1, 0) < 0) break;
    const int made = taken == N_ARRAYS && fill(self, given) == 0;
    while (taken) PyBuffer_Release(&given[--taken]);
    if (made) return (PyObject *)self;
    Py_DecRef((PyObject *)self);
    return NULL;
}

static void Trees_dealloc(PyObject *object) {
    Trees *self = (Trees *)object;
    PyTypeObject *type = Py_TYPE(object);
    free(self->roots);
    free(self->by_category);
    free(self->depth);
    free(self->nodes);
    free(self->splits);
    for (int i = 0; i < N_ARRAYS; i++) free(self->array[i]);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(object);
    Py_DecRef((PyObject *)type);
}

/* 1 / (1 + exp(-x)): src/objective/binary_objective.hpp of LightGBM, xsf/expit of SciPy; and in float32, with its
 * bound, src/common/math.h of XGBoost. */
static double sigmoid(double x) { return 1.0 / (1.0 + exp(-x)); }

static double sigmoid_single(double x) {
    const float bound = 88.7f, minus = -(float)x;
    return (double)(1.0f / (expf(minus < bound ? minus : bound) + 1.0f + 1e-16f));
}

/* include/LightGBM/utils/common.h, Softmax */
static void softmax(double *row, Py_ssize_t k) {
    double highest = row[0], sum = 0;
    for (Py_ssize_t i = 1; i < k; i++) highest = row[i] > highest ? row[i] : highest;
    for (Py_ssize_t i = 0; i < k; i++) sum += row[i] = exp(row[i] - highest);
    for (Py_ssize_t i = 0; i < k; i++) row[i] /= sum;
}

/* src/common/math.h of XGBoost, Softmax: float32, but for the sum */
static void softmax_single(double *row, Py_ssize_t k) {
    float highest = (float)row[0];
    double sum = 0;
    for (Py_ssize_t i = 1; i < k; i++) highest = (float)row[i] > highest ? (float)row[i] : highest;
    for (Py_ssize_t i = 0; i < k; i++) sum += row[i] = (double)expf((float)row[i] - highest);
    for (Py_ssize_t i = 0; i < k; i++) row[i] = (double)((float)row[i] / (float)sum);
}

/* The links by number, as `link` takes them. */
enum { SIGMOID, SOFTMAX, N_LINKS };

static PyObject *link_scores(PyObject *module, PyObject *args) {
    PyObject *object;
    Py_buffer scores;
    int which, single;
    (void)module;
    if (!PyArg_ParseTuple(args, "Oip:link", &object, &which, &single)) return NULL;
    if (which < 0 || which >= N_LINKS) return PyErr_Format(PyExc_ValueError, "there is no such link");
    if (get(object, &scores, "d", 8, 2, PyBUF_WRITABLE) < 0) return NULL;
    const Py_ssize_t n = scores.shape[0], k = scores.shape[1];
    double *all = scores.buf;
    if (which == SIGMOID)
        for (Py_ssize_t i = 0; i < n * k; i++) all[i] = single ? sigmoid_single(all[i]) : sigmoid(all[i]);
    else if (k > 0)
        for (Py_ssize_t i = 0; i < n; i++) (single ? softmax_single : softmax)(all + i * k, k);
    PyBuffer_Release(&scores);
    return Py_NewRef(Py_None);
}

static PyMethodDef METHODS[] = {
    {"score", Trees_score, METH_VARARGS, "score(X, out): write the sums of the trees' leaves for each row of X."},
    {NULL, NULL, 0, NULL},
};
static PyType_Slot SLOTS[] = {
    {Py_tp_doc, "Trees(n_features, width, rounds, single, missing, divisor, arrays)"},
    {Py_tp_new, Trees_new},
    {Py_tp_dealloc, Trees_dealloc},
    {Py_tp_methods, METHODS},
    {0, NULL},
};
static PyType_Spec SPEC = {
    .name = "fin_pyfunc.model.backends._trees.Trees",
    .basicsize = sizeof(Trees),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = SLOTS,
};
static PyMethodDef FUNCTIONS[] = {
    {"link", link_scores, METH_VARARGS, "link(scores, which, single): make probabilities of scores, in place."},
    {NULL, NULL, 0, NULL},
};

static int fill_module(PyObject *module) {
    PyObject *type = PyType_FromSpec(&SPEC);
    if (!type) return -1;
    const int failed = PyModule_AddObjectRef(module, "Trees", type);
    Py_DecRef(type);
    return failed;
}

static PyModuleDef_Slot MODULE_SLOTS[] = {{Py_mod_exec, fill_module}, {0, NULL}};
static PyModuleDef MODULE = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_trees",
    .m_methods = FUNCTIONS,
    .m_slots = MODULE_SLOTS,
};

PyMODINIT_FUNC PyInit__trees(void) { return PyModuleDef_Init(&MODULE); }
