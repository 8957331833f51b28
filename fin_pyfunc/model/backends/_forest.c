/* A random forest, laid out so that the walk of a row waits for memory as little as it can.
 *
 * A lone row's time goes into loads that wait for one another: a node tells which node comes next. So sixteen trees are
 * walked at a time, whose loads do not wait for each other, without a branch that the processor could foretell wrongly;
 * and a node has 8 bytes, the two below it lie side by side, and a leaf leads to itself, so that all sixteen may take
 * the same steps until none of them moves any more.
 *
 * Numbers are what scikit-learn computes with, to the last bit: a row's features rounded to float32, a leaf's
 * probabilities in float64, added up in the order of the trees and divided by how many there are.
 */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000 /* buffers came to it with Python 3.11 */
#include <Python.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define LANES 16
/* rows that are taken through all trees before the next ones: their features and sums stay in the nearest cache */
#define BLOCK 256
/* trees times rows from which on other threads of Python may go on meanwhile */
#define RELEASE 4000
/* the bits of a quiet NaN, which no feature is greater than; a leaf's row of values is numbered in the 22 below */
#define QUIET_NAN 0x7FC00000u
#define MAX_VALUES 0x400000u

typedef struct {
    float threshold; /* a row goes left unless its feature is greater */
    uint32_t ref;    /* from the top: the left node below, counted from the root; the feature; whether NaN goes left */
} Node;

typedef struct {
    PyObject_HEAD
    Py_ssize_t n_features, n_outputs, n_trees;
    unsigned shift; /* where in `ref` the node below begins */
    size_t *roots;
    Node *nodes;
    double *values;
} Forest;

static uint32_t bits_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static const double *values_of(const Forest *self, const Node *leaf) {
    return self->values + (size_t)(bits_of(leaf->threshold) & (MAX_VALUES - 1)) * self->n_outputs;
}

static void add(double *sums, const double *values, Py_ssize_t n) {
    for (Py_ssize_t i = 0; i < n; i++) sums[i] += values[i];
}

/* One row through `count` trees from `first` on, at once. */
static void walk(const Forest *self, const float *row, Py_ssize_t first, int count, double *sums) {
    const unsigned shift = self->shift;
    const uint32_t mask = ((uint32_t)1 << (shift - 1)) - 1;
    const Node *tree[LANES];
    uint32_t at[LANES], moved;
    for (int i = 0; i < LANES; i++) {
        tree[i] = self->nodes + self->roots[i < count ? first + i : first];
        at[i] = 0;
    }
    do {
        moved = 0;
        for (int i = 0; i < LANES; i++) {
            const Node node = tree[i][at[i]];
            const uint32_t next = (node.ref >> shift) + (row[node.ref >> 1 & mask] > node.threshold);
            moved |= next ^ at[i];
            at[i] = next;
        }
    } while (moved);
    for (int i = 0; i < count; i++) add(sums, values_of(self, tree[i] + at[i]), self->n_outputs);
}

/* The same of a row with missing values. */
static void walk_with_gaps(const Forest *self, const float *row, Py_ssize_t first, int count, double *sums) {
    const unsigned shift = self->shift;
    const uint32_t mask = ((uint32_t)1 << (shift - 1)) - 1;
    for (int i = 0; i < count; i++) {
        const Node *tree = self->nodes + self->roots[first + i];
        uint32_t at = 0, next;
        for (;;) {
            const uint32_t ref = tree[at].ref;
            const float value = row[ref >> 1 & mask];
            next = ref >> shift;
            if (next == at) break;
            at = next + (value != value ? !(ref & 1) : value > tree[at].threshold);
        }
        add(sums, values_of(self, tree + at), self->n_outputs);
    }
}

/* `n` rows, at most BLOCK; `single` has room for their features as float32. */
static void score_block(const Forest *self, const double *X, Py_ssize_t n, float *single, double *out) {
    const Py_ssize_t width = self->n_features, k = self->n_outputs;
    unsigned char gaps[BLOCK];
    for (Py_ssize_t i = 0; i < n; i++) {
        int missing = 0;
        for (Py_ssize_t j = 0; j < width; j++) {
            const float value = (float)X[i * width + j];
            single[i * width + j] = value;
            missing |= value != value;
        }
        gaps[i] = (unsigned char)missing;
    }
    for (Py_ssize_t i = 0; i < n * k; i++) out[i] = 0;
    for (Py_ssize_t first = 0; first < self->n_trees; first += LANES) {
        const int count = self->n_trees - first < LANES ? (int)(self->n_trees - first) : LANES;
        for (Py_ssize_t i = 0; i < n; i++)
            (gaps[i] ? walk_with_gaps : walk)(self, single + i * width, first, count, out + i * k);
    }
    for (Py_ssize_t i = 0; i < n * k; i++) out[i] /= (double)self->n_trees;
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

static PyObject *Forest_score(PyObject *object, PyObject *args) {
    const Forest *self = (const Forest *)object;
    PyObject *rows, *sums, *result = NULL;
    Py_buffer X, out;
    float few[512], *single = few;
    if (!PyArg_ParseTuple(args, "OO:score", &rows, &sums)) return NULL;
    if (get(rows, &X, "d", 8, 2, 0) < 0) return NULL;
    if (get(sums, &out, "d", 8, 2, PyBUF_WRITABLE) < 0) {
        PyBuffer_Release(&X);
        return NULL;
    }
    const Py_ssize_t n = X.shape[0], width = self->n_features, k = self->n_outputs;
    if (X.shape[1] != width || out.shape[0] != n || out.shape[1] != k) {
        PyErr_Format(PyExc_ValueError, "rows must have %zd features, and sums %zd columns", width, k);
        goto done;
    }
    const Py_ssize_t most = n < BLOCK ? n : BLOCK;
    if (most * width > (Py_ssize_t)(sizeof few / sizeof *few)) single = malloc((size_t)(most * width) * sizeof *single);
    if (!single) {
        PyErr_NoMemory();
        goto done;
    }
    PyThreadState *state = n * self->n_trees >= RELEASE ? PyEval_SaveThread() : NULL;
    for (Py_ssize_t first = 0; first < n; first += BLOCK) {
        const Py_ssize_t count = n - first < BLOCK ? n - first : BLOCK;
        score_block(self, (const double *)X.buf + first * width, count, single, (double *)out.buf + first * k);
    }
    if (state) PyEval_RestoreThread(state);
    if (single != few) free(single);
    result = Py_NewRef(Py_None);
done:
    PyBuffer_Release(&X);
    PyBuffer_Release(&out);
    return result;
}

/* The arrays that a forest is made of, as `Forest` takes them. */
enum { ROOTS, LEFT, RIGHT, FEATURE, THRESHOLD, NAN_LEFT, ROW, VALUES, N_ARRAYS };
static const struct {
    const char *kinds;
    Py_ssize_t size;
    int ndim;
} ARRAYS[N_ARRAYS] = {{"qln", 8, 1}, {"il", 4, 1}, {"il", 4, 1}, {"il", 4, 1},
                      {"f", 4, 1},   {"?B", 1, 1}, {"il", 4, 1}, {"d", 8, 2}};

/* Lay one tree out from `nodes` on, its root first; how many nodes it has, or -1 with an error set. */
static Py_ssize_t lay_out(const Forest *self, Py_buffer *given, int64_t root, Node *nodes, Py_ssize_t room, int64_t *stack) {
    const int32_t *left = given[LEFT].buf, *right = given[RIGHT].buf, *feature = given[FEATURE].buf;
    const float *threshold = given[THRESHOLD].buf;
    const unsigned char *nan_left = given[NAN_LEFT].buf;
    const int32_t *row = given[ROW].buf;
    const int64_t n_nodes = given[LEFT].shape[0], most = (int64_t)1 << (32 - self->shift);
    /* one is left out, so that no two nodes side by side lie in two lines of the cache */
    Py_ssize_t used = 2, waiting = 1;
    if (room < used) goto bad;
    nodes[1] = (Node){0, 0};
    /* what waits: where a node was, and where it goes */
    stack[0] = root, stack[1] = 0;
    while (waiting) {
        waiting--;
        const int64_t from = stack[2 * waiting], to = stack[2 * waiting + 1];
        if (from < 0 || from >= n_nodes) goto bad;
        if (left[from] < 0) {
            if (row[from] < 0 || row[from] >= given[VALUES].shape[0]) goto bad;
            const uint32_t bits = QUIET_NAN | (uint32_t)row[from];
            memcpy(&nodes[to].threshold, &bits, sizeof bits);
            nodes[to].ref = (uint32_t)to << self->shift;
            continue;
        }
        if (feature[from] < 0 || feature[from] >= self->n_features) goto bad;
        if (used + 2 > room) goto bad; /* a node below two others */
        if (used + 2 > most) {
            PyErr_SetString(PyExc_OverflowError, "a tree has too many nodes for so many features");
            return -1;
        }
        nodes[to].threshold = threshold[from];
        nodes[to].ref = (uint32_t)used << self->shift | (uint32_t)feature[from] << 1 | (nan_left[from] != 0);
        stack[2 * waiting] = right[from], stack[2 * waiting + 1] = used + 1;
        stack[2 * waiting + 2] = left[from], stack[2 * waiting + 3] = used;
        waiting += 2, used += 2;
    }
    return used;
bad:
    PyErr_SetString(PyExc_ValueError, "the nodes do not form trees");
    return -1;
}

static int fill(Forest *self, Py_buffer *given) {
    const int64_t *roots = given[ROOTS].buf;
    const Py_ssize_t n_nodes = given[LEFT].shape[0], room = n_nodes + given[ROOTS].shape[0];
    int result = -1;
    for (int i = RIGHT; i <= ROW; i++)
        if (given[i].shape[0] != n_nodes) {
            PyErr_SetString(PyExc_ValueError, "the arrays of the nodes are of uneven length");
            return -1;
        }
    self->n_trees = given[ROOTS].shape[0], self->n_outputs = given[VALUES].shape[1];
    if (self->n_trees < 1 || n_nodes < 1 || self->n_features < 1 || self->n_outputs < 1) {
        PyErr_SetString(PyExc_ValueError, "a forest has a tree, a node, a feature and an output");
        return -1;
    }
    for (self->shift = 2; self->shift < 31 && (Py_ssize_t)1 << (self->shift - 1) < self->n_features; self->shift++) {}
    if (given[VALUES].shape[0] > (Py_ssize_t)MAX_VALUES || self->shift >= 31) {
        PyErr_SetString(PyExc_OverflowError, "there are too many leaves or features");
        return -1;
    }
    /* two numbers for each node that waits, of which there are never more than nodes */
    int64_t *stack = malloc(((size_t)room + 2) * 2 * sizeof *stack);
    self->roots = malloc((size_t)self->n_trees * sizeof *self->roots);
    self->nodes = malloc((size_t)room * sizeof *self->nodes);
    self->values = malloc((size_t)given[VALUES].len);
    if (!stack || !self->roots || !self->nodes || !self->values) {
        PyErr_NoMemory();
        goto done;
    }
    memcpy(self->values, given[VALUES].buf, (size_t)given[VALUES].len);
    Py_ssize_t used = 0;
    for (Py_ssize_t i = 0; i < self->n_trees; i++) {
        const Py_ssize_t more = lay_out(self, given, roots[i], self->nodes + used, room - used, stack);
        if (more < 0) goto done;
        self->roots[i] = (size_t)used;
        used += more;
    }
    result = 0;
done:
    free(stack);
    return result;
}

static PyObject *Forest_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    PyObject *objects[N_ARRAYS];
    Py_buffer given[N_ARRAYS];
    Py_ssize_t n_features;
    int taken = 0;
    if (kwargs && PyDict_Size(kwargs)) return PyErr_Format(PyExc_TypeError, "Forest takes no keywords");
    if (!PyArg_ParseTuple(args, "nOOOOOOOO:Forest", &n_features, &objects[0], &objects[1], &objects[2], &objects[3],
                          &objects[4], &objects[5], &objects[6], &objects[7]))
        return NULL;
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Forest *self = (Forest *)allocate(type, 0);
    if (!self) return NULL;
    self->n_features = n_features;
    for (; taken < N_ARRAYS; taken++)
        if (get(objects[taken], &given[taken], ARRAYS[taken].kinds, ARRAYS[taken].size, ARRAYS[taken].ndim, 0) < 0) break;
    const int made = taken == N_ARRAYS && fill(self, given) == 0;
    while (taken) PyBuffer_Release(&given[--taken]);
    if (made) return (PyObject *)self;
    Py_DecRef((PyObject *)self);
    return NULL;
}

static void Forest_dealloc(PyObject *object) {
    Forest *self = (Forest *)object;
    PyTypeObject *type = Py_TYPE(object);
    free(self->roots);
    free(self->nodes);
    free(self->values);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(object);
    Py_DecRef((PyObject *)type);
}

static PyMethodDef METHODS[] = {
    {"score", Forest_score, METH_VARARGS, "score(X, out): write the mean of the trees' values of each row of X."},
    {NULL, NULL, 0, NULL},
};
static PyType_Slot SLOTS[] = {
    {Py_tp_doc, "Forest(n_features, roots, left, right, feature, threshold, nan_left, row, values)"},
    {Py_tp_new, Forest_new},
    {Py_tp_dealloc, Forest_dealloc},
    {Py_tp_methods, METHODS},
    {0, NULL},
};
static PyType_Spec SPEC = {
    .name = "fin_pyfunc.model.backends._forest.Forest",
    .basicsize = sizeof(Forest),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = SLOTS,
};

static int fill_module(PyObject *module) {
    PyObject *type = PyType_FromSpec(&SPEC);
    if (!type) return -1;
    const int failed = PyModule_AddObjectRef(module, "Forest", type);
    Py_DecRef(type);
    return failed;
}

static PyModuleDef_Slot MODULE_SLOTS[] = {{Py_mod_exec, fill_module}, {0, NULL}};
static PyModuleDef MODULE = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_forest",
    .m_slots = MODULE_SLOTS,
};

PyMODINIT_FUNC PyInit__forest(void) { return PyModuleDef_Init(&MODULE); }
