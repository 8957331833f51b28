/* A boosted ensemble: what the leaves of its trees add to the scores of a row, as the library that grew them adds it.
 *
 * As in `_forest.c`, sixteen trees are walked at a time, whose loads do not wait for each other; the two nodes below a
 * node lie side by side, and a leaf leads to itself. Values are added up tree by tree, in float64, or in float32 where
 * the library does (XGBoost), so that the sums are the library's to the last bit.
 *
 * `sigmoid` and `softmax` call the C library's exp and expf, as SciPy, LightGBM and XGBoost do.
 */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000 /* buffers came to it with Python 3.11 */
#include <Python.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define LANES 16
/* rows that are taken through all trees before the next ones: their features and sums stay in the nearest cache */
#define BLOCK 256
/* trees times rows from which on other threads of Python may go on meanwhile */
#define RELEASE 4000
/* most scores of a row */
#define MAX_SCORES 4096

typedef struct {
    double threshold; /* a row goes left unless its feature is greater; NaN at a leaf, which no number is greater than */
    int32_t below;    /* the left node below, counted from the root; the right one is next to it; a leaf's own number */
    int32_t feature;  /* times two, and whether NaN goes left */
} Node;

typedef struct {
    PyObject_HEAD
    Py_ssize_t n_features, n_scores, n_trees;
    int rounds, single; /* whether features are rounded to float32 first, and whether float32 is added up */
    size_t *roots;
    Node *nodes;
    double *values; /* one a node */
    int32_t *target;
    double *base;
} Boosted;

/* One row through `count` trees from `first` on, at once; where each of them ends. */
static void walk(const Boosted *self, const double *row, Py_ssize_t first, int count, uint32_t *at) {
    const Node *tree[LANES];
    uint32_t moved;
    for (int i = 0; i < LANES; i++) {
        tree[i] = self->nodes + self->roots[i < count ? first + i : first];
        at[i] = 0;
    }
    do {
        moved = 0;
        for (int i = 0; i < LANES; i++) {
            const Node *node = tree[i] + at[i];
            const uint32_t next = (uint32_t)node->below + (row[node->feature >> 1] > node->threshold);
            moved |= next ^ at[i];
            at[i] = next;
        }
    } while (moved);
}

/* The same of a row with missing values. */
static void walk_with_gaps(const Boosted *self, const double *row, Py_ssize_t first, int count, uint32_t *at) {
    for (int i = 0; i < count; i++) {
        const Node *tree = self->nodes + self->roots[first + i];
        uint32_t here = 0;
        for (;;) {
            const Node *node = tree + here;
            const double value = row[node->feature >> 1];
            if ((uint32_t)node->below == here) break;
            here = (uint32_t)node->below + (value != value ? !(node->feature & 1) : value > node->threshold);
        }
        at[i] = here;
    }
}

/* `n` rows, at most BLOCK; `X` is a copy that may be rounded. */
static void score_block(const Boosted *self, double *X, Py_ssize_t n, double *out) {
    const Py_ssize_t width = self->n_features, k = self->n_scores;
    unsigned char gaps[BLOCK];
    uint32_t at[LANES];
    for (Py_ssize_t i = 0; i < n; i++) {
        int missing = 0;
        for (Py_ssize_t j = 0; j < width; j++) {
            double *value = X + i * width + j;
            if (self->rounds) *value = (double)(float)*value;
            missing |= *value != *value;
        }
        gaps[i] = (unsigned char)missing;
        memcpy(out + i * k, self->base, (size_t)k * sizeof *out);
    }
    for (Py_ssize_t first = 0; first < self->n_trees; first += LANES) {
        const int count = self->n_trees - first < LANES ? (int)(self->n_trees - first) : LANES;
        for (Py_ssize_t i = 0; i < n; i++) {
            (gaps[i] ? walk_with_gaps : walk)(self, X + i * width, first, count, at);
            for (int j = 0; j < count; j++) {
                double *sum = out + i * k + self->target[first + j];
                const double value = self->values[self->roots[first + j] + at[j]];
                *sum = self->single ? (double)((float)*sum + (float)value) : *sum + value;
            }
        }
    }
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

static PyObject *Boosted_score(PyObject *object, PyObject *args) {
    const Boosted *self = (const Boosted *)object;
    PyObject *rows, *sums, *result = NULL;
    Py_buffer X, out;
    double few[256], *block = few;
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
    const Py_ssize_t most = n < BLOCK ? n : BLOCK;
    if (most * width > (Py_ssize_t)(sizeof few / sizeof *few)) block = malloc((size_t)(most * width) * sizeof *block);
    if (!block) {
        PyErr_NoMemory();
        goto done;
    }
    PyThreadState *state = n * self->n_trees >= RELEASE ? PyEval_SaveThread() : NULL;
    for (Py_ssize_t first = 0; first < n; first += BLOCK) {
        const Py_ssize_t count = n - first < BLOCK ? n - first : BLOCK;
        memcpy(block, (const double *)X.buf + first * width, (size_t)(count * width) * sizeof *block);
        score_block(self, block, count, (double *)out.buf + first * k);
    }
    if (state) PyEval_RestoreThread(state);
    if (block != few) free(block);
    result = Py_NewRef(Py_None);
done:
    PyBuffer_Release(&X);
    PyBuffer_Release(&out);
    return result;
}

/* The arrays that an ensemble is made of, as `Boosted` takes them. */
enum { ROOTS, LEFT, RIGHT, FEATURE, THRESHOLD, NAN_LEFT, VALUE, TARGET, BASE, N_ARRAYS };
static const struct {
    const char *kinds;
    Py_ssize_t size;
} ARRAYS[N_ARRAYS] = {{"qln", 8}, {"il", 4}, {"il", 4}, {"il", 4}, {"d", 8}, {"?B", 1}, {"d", 8}, {"il", 4}, {"d", 8}};

/* Lay one tree out from `nodes` on, its root first; how many nodes it has, or -1 with an error set. */
static Py_ssize_t lay_out(Boosted *self, Py_buffer *given, int64_t root, size_t start, Py_ssize_t room, int64_t *stack) {
    const int32_t *left = given[LEFT].buf, *right = given[RIGHT].buf, *feature = given[FEATURE].buf;
    const double *threshold = given[THRESHOLD].buf, *value = given[VALUE].buf;
    const unsigned char *nan_left = given[NAN_LEFT].buf;
    const int64_t n_nodes = given[LEFT].shape[0];
    Node *nodes = self->nodes + start;
    Py_ssize_t used = 1, waiting = 1;
    if (room < used) goto bad;
    /* what waits: where a node was, and where it goes */
    stack[0] = root, stack[1] = 0;
    while (waiting) {
        waiting--;
        const int64_t from = stack[2 * waiting], to = stack[2 * waiting + 1];
        if (from < 0 || from >= n_nodes) goto bad;
        if (left[from] < 0) {
            nodes[to] = (Node){NAN, (int32_t)to, 0};
            self->values[start + (size_t)to] = value[from];
            continue;
        }
        if (feature[from] < 0 || feature[from] >= self->n_features) goto bad;
        if (used + 2 > room || used + 2 > INT32_MAX) goto bad; /* a node below two others */
        nodes[to] = (Node){threshold[from], (int32_t)used, feature[from] * 2 | (nan_left[from] != 0)};
        self->values[start + (size_t)to] = 0;
        stack[2 * waiting] = right[from], stack[2 * waiting + 1] = used + 1;
        stack[2 * waiting + 2] = left[from], stack[2 * waiting + 3] = used;
        waiting += 2, used += 2;
    }
    return used;
bad:
    PyErr_SetString(PyExc_ValueError, "the nodes do not form trees");
    return -1;
}

static int fill(Boosted *self, Py_buffer *given) {
    const int64_t *roots = given[ROOTS].buf;
    const Py_ssize_t n_nodes = given[LEFT].shape[0];
    int result = -1;
    for (int i = RIGHT; i <= VALUE; i++)
        if (given[i].shape[0] != n_nodes) {
            PyErr_SetString(PyExc_ValueError, "the arrays of the nodes are of uneven length");
            return -1;
        }
    self->n_trees = given[ROOTS].shape[0], self->n_scores = given[BASE].shape[0];
    if (n_nodes < 1 || n_nodes > INT32_MAX || self->n_features < 1 || self->n_features > INT32_MAX / 2 ||
        self->n_scores < 1 || self->n_scores > MAX_SCORES || given[TARGET].shape[0] != self->n_trees) {
        PyErr_SetString(PyExc_ValueError, "an ensemble has nodes, features and scores, and a score for each tree");
        return -1;
    }
    /* two numbers for each node that waits, of which there are never more than nodes */
    int64_t *stack = malloc(((size_t)n_nodes + 2) * 2 * sizeof *stack);
    self->roots = malloc(((size_t)self->n_trees + 1) * sizeof *self->roots);
    self->nodes = malloc((size_t)n_nodes * sizeof *self->nodes);
    self->values = malloc((size_t)n_nodes * sizeof *self->values);
    self->target = malloc((size_t)given[TARGET].len + 1);
    self->base = malloc((size_t)given[BASE].len);
    if (!stack || !self->roots || !self->nodes || !self->values || !self->target || !self->base) {
        PyErr_NoMemory();
        goto done;
    }
    memcpy(self->target, given[TARGET].buf, (size_t)given[TARGET].len);
    memcpy(self->base, given[BASE].buf, (size_t)given[BASE].len);
    size_t used = 0;
    for (Py_ssize_t i = 0; i < self->n_trees; i++) {
        if (self->target[i] < 0 || self->target[i] >= self->n_scores) {
            PyErr_SetString(PyExc_ValueError, "a tree adds to a score that there is not");
            goto done;
        }
        const Py_ssize_t more = lay_out(self, given, roots[i], used, n_nodes - (Py_ssize_t)used, stack);
        if (more < 0) goto done;
        self->roots[i] = used;
        used += (size_t)more;
    }
    result = 0;
done:
    free(stack);
    return result;
}

static PyObject *Boosted_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    PyObject *objects[N_ARRAYS];
    Py_buffer given[N_ARRAYS];
    Py_ssize_t n_features;
    int taken = 0, rounds, single;
    if (kwargs && PyDict_Size(kwargs)) return PyErr_Format(PyExc_TypeError, "Boosted takes no keywords");
    if (!PyArg_ParseTuple(args, "nppOOOOOOOOO:Boosted", &n_features, &rounds, &single, &objects[0], &objects[1],
                          &objects[2], &objects[3], &objects[4], &objects[5], &objects[6], &objects[7], &objects[8]))
        return NULL;
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Boosted *self = (Boosted *)allocate(type, 0);
    if (!self) return NULL;
    self->n_features = n_features, self->rounds = rounds, self->single = single;
    for (; taken < N_ARRAYS; taken++)
        if (get(objects[taken], &given[taken], ARRAYS[taken].kinds, ARRAYS[taken].size, 1, 0) < 0) break;
    const int made = taken == N_ARRAYS && fill(self, given) == 0;
    while (taken) PyBuffer_Release(&given[--taken]);
    if (made) return (PyObject *)self;
    Py_DecRef((PyObject *)self);
    return NULL;
}

static void Boosted_dealloc(PyObject *object) {
    Boosted *self = (Boosted *)object;
    PyTypeObject *type = Py_TYPE(object);
    free(self->roots);
    free(self->nodes);
    free(self->values);
    free(self->target);
    free(self->base);
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
    {"score", Boosted_score, METH_VARARGS, "score(X, out): write the sums of the trees' values of each row of X."},
    {NULL, NULL, 0, NULL},
};
static PyType_Slot SLOTS[] = {
    {Py_tp_doc, "Boosted(n_features, rounds, single, roots, left, right, feature, threshold, nan_left, value, target, base)"},
    {Py_tp_new, Boosted_new},
    {Py_tp_dealloc, Boosted_dealloc},
    {Py_tp_methods, METHODS},
    {0, NULL},
};
static PyType_Spec SPEC = {
    .name = "fin_pyfunc.model.backends._boosted.Boosted",
    .basicsize = sizeof(Boosted),
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
    const int failed = PyModule_AddObjectRef(module, "Boosted", type);
    Py_DecRef(type);
    return failed;
}

static PyModuleDef_Slot MODULE_SLOTS[] = {{Py_mod_exec, fill_module}, {0, NULL}};
static PyModuleDef MODULE = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_boosted",
    .m_methods = FUNCTIONS,
    .m_slots = MODULE_SLOTS,
};

PyMODINIT_FUNC PyInit__boosted(void) { return PyModuleDef_Init(&MODULE); }
