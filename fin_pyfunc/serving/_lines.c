/* Lines of the record and of the log, many at a time: put together from what a request left behind, and chained.
 *
 * A worker records and logs thousands of predictions a second between its answers, and whoever chains them must not keep
 * Python's lock from it. What is done here is what `record.lines`, `record.notes` and `logs.pieces` do where this was not
 * built; tests hold both to the same bytes.
 */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000 /* buffers came to it with Python 3.11 */
#include <Python.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

/* not among the headers' limited declarations before 3.12, but in the stable interface of each */
extern int _PyBytes_Resize(PyObject **, Py_ssize_t);

/* OpenSSL's SHA256, which `hashlib` brought along */
typedef unsigned char *(*Sha256)(const unsigned char *, size_t, unsigned char *);

#define HEX 64
#define SEQ "{\"seq\":"
#define PREV ",\"prev\":\""
#define REST "\","
/* what a line has around its body at most: a number has 20 digits, then come a brace and a line break */
#define AROUND (sizeof SEQ + sizeof PREV + sizeof REST + HEX + 20 + 2)
/* 2026-11-26T08:30:00.123456Z */
#define TIMESTAMP 27
/* text around what differs in a note, and what differs: id, the caller's id, two times, decisions and features; their
 * answer comes beside it, as JSON */
#define PARTS 7
#define NOTE 7
/* what a line of the log has around its time, id and seconds; and what is known of its request: these three and a kind */
#define AROUND_IDS 4
#define REQUEST 4

static char *put(char *to, const char *from, Py_ssize_t n) {
    memcpy(to, from, (size_t)n);
    return to + n;
}

/* A number with at least `width` digits. */
static char *put_number(char *to, uint64_t number, int width) {
    char digits[20];
    int n = 0;
    do {
        digits[n++] = (char)('0' + number % 10);
        number /= 10;
    } while (number || n < width);
    while (n) *to++ = digits[--n];
    return to;
}

/* Seconds since the epoch, as `timestamps.timestamp` writes them. */
static char *put_time(char *to, double seconds, int64_t *known, char text[20]) {
    const int64_t micros = (int64_t)(seconds * 1e6), rest = (micros % 1000000 + 1000000) % 1000000;
    const int64_t whole = (micros - rest) / 1000000;
    if (whole != *known) {
        const time_t at = (time_t)whole;
        struct tm parts;
        gmtime_r(&at, &parts);
        strftime(text, 20, "%Y-%m-%dT%H:%M:%S", &parts);
        *known = whole;
    }
    to = put(to, text, 19);
    *to++ = '.';
    to = put_number(to, (uint64_t)rest, 6);
    *to++ = 'Z';
    return to;
}

/* Features as they were sent, on one line; NULL where they hold more than ASCII, which is to be looked at. */
static char *put_sent(char *to, const char *from, size_t n) {
    uint64_t all = 0, word;
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        memcpy(&word, from + i, 8);
        all |= word;
    }
    for (; i < n; i++) all |= (unsigned char)from[i];
    if (all & 0x8080808080808080u) return NULL;
    memcpy(to, from, n);
    if (memchr(to, '\n', n) || memchr(to, '\r', n))
        for (i = 0; i < n; i++)
            if (to[i] == '\n' || to[i] == '\r') to[i] = ' ';
    return to + n;
}

typedef struct {
    const char *at;
    Py_ssize_t n;
} Text;

static int get_bytes(PyObject *object, Text *text) {
    char *at;
    if (PyBytes_AsStringAndSize(object, &at, &text->n) < 0) return -1;
    text->at = at;
    return 0;
}

/* The pieces of a note but its features and answer; how many bytes they have, or -1 with an error set. */
static Py_ssize_t take_apart(PyObject *note, Text parts[PARTS], Text *id, Text *theirs, double times[2]) {
    PyObject *given = PyTuple_Check(note) && PyTuple_Size(note) == NOTE ? PyTuple_GetItem(note, 0) : NULL;
    if (!given || !PyTuple_Check(given) || PyTuple_Size(given) != PARTS) {
        PyErr_SetString(PyExc_TypeError, "a note is a tuple of 7, the first of which is one of 7, too");
        return -1;
    }
    Py_ssize_t size = 0;
    for (int i = 0; i < PARTS; i++) {
        if (get_bytes(PyTuple_GetItem(given, i), &parts[i]) < 0) return -1;
        size += parts[i].n;
    }
    if (!(id->at = PyUnicode_AsUTF8AndSize(PyTuple_GetItem(note, 1), &id->n))) return -1;
    if (get_bytes(PyTuple_GetItem(note, 2), theirs) < 0) return -1;
    for (int i = 0; i < 2; i++) times[i] = PyFloat_AsDouble(PyTuple_GetItem(note, 3 + i));
    if (PyErr_Occurred()) return -1;
    return size + id->n + theirs->n + 2 * TIMESTAMP + 1;
}

static PyObject *bodies(PyObject *module, PyObject *args) {
    PyObject *notes, *answers, *made = NULL;
    double offset;
    Py_ssize_t room = 0, used = 0;
    if (!PyArg_ParseTuple(args, "OOd:bodies", &notes, &answers, &offset)) return NULL;
    const Py_ssize_t count = PyList_Size(notes);
    if (count < 0) return NULL;
    if (PyList_Size(answers) != count) {
        if (!PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, "each note has one answer");
        return NULL;
    }
    int64_t known = INT64_MIN;
    char text[20];
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *note = PyList_GetItem(notes, i);
        Text parts[PARTS], id, theirs, answer;
        double times[2];
        Py_buffer sent;
        if (get_bytes(PyList_GetItem(answers, i), &answer) < 0) goto failed;
        Py_ssize_t size = take_apart(note, parts, &id, &theirs, times);
        if (size < 0) goto failed;
        size += answer.n;
        if (PyObject_GetBuffer(PyTuple_GetItem(note, 6), &sent, PyBUF_SIMPLE) < 0) goto failed;
        if (used + size + sent.len > room) {
            /* those that follow are about as long */
            room = used + (size + sent.len) * (count - i) + (count - i) * 16;
            if (made ? _PyBytes_Resize(&made, room) < 0 : !(made = PyBytes_FromStringAndSize(NULL, room))) {
                PyBuffer_Release(&sent);
                goto failed;
            }
        }
        char *start = PyBytes_AsString(made), *to = start + used;
        to = put(to, parts[0].at, parts[0].n);
        to = put(to, id.at, id.n);
        to = put(to, parts[1].at, parts[1].n);
        to = put(to, theirs.at, theirs.n);
        to = put(to, parts[2].at, parts[2].n);
        to = put_time(to, offset + times[0], &known, text);
        to = put(to, parts[3].at, parts[3].n);
        to = put_time(to, offset + times[1], &known, text);
        to = put(to, parts[4].at, parts[4].n);
        to = put(to, answer.at, answer.n);
        to = put(to, parts[5].at, parts[5].n);
        to = put_sent(to, sent.buf, (size_t)sent.len);
        PyBuffer_Release(&sent);
        if (!to) {
            Py_XDECREF(made);
            return Py_NewRef(Py_None);
        }
        to = put(to, parts[6].at, parts[6].n);
        *to++ = '\n';
        used = to - start;
    }
    if (!made) return PyBytes_FromStringAndSize(NULL, 0);
    return _PyBytes_Resize(&made, used) < 0 ? NULL : made;
failed:
    Py_XDECREF(made);
    return NULL;
}

static void put_hex(char *to, const unsigned char digest[HEX / 2]) {
    for (int i = 0; i < HEX / 2; i++) {
        to[2 * i] = "0123456789abcdef"[digest[i] >> 4];
        to[2 * i + 1] = "0123456789abcdef"[digest[i] & 15];
    }
}

/* Lines of the bodies in one block, from `to` on, which follow a line with the digest `prev`, and where they end. */
static char *chain(char *to, const char *block, size_t n, Sha256 sha256, uint64_t *seq, char prev[HEX]) {
    for (const char *body = block, *const end = block + n, *over; body < end; body = over + 1) {
        unsigned char digest[HEX / 2];
        char *const line = to;
        over = memchr(body, '\n', (size_t)(end - body));
        to = put(to, SEQ, sizeof SEQ - 1);
        to = put_number(to, (*seq)++, 1);
        to = put(to, PREV, sizeof PREV - 1);
        to = put(to, prev, HEX);
        to = put(to, REST, sizeof REST - 1);
        to = put(to, body, over - body);
        *to++ = '}';
        sha256((const unsigned char *)line, (size_t)(to - line), digest);
        put_hex(prev, digest);
        *to++ = '\n';
    }
    return to;
}

static PyObject *chained(PyObject *module, PyObject *args) {
    unsigned long long address, first;
    const char *before;
    Py_ssize_t n_before, size = 0;
    PyObject *given, *lines = NULL;
    if (!PyArg_ParseTuple(args, "KKy#O:chained", &address, &first, &before, &n_before, &given)) return NULL;
    const Py_ssize_t n = PyList_Size(given);
    if (n < 0) return NULL;
    Text *const blocks = PyMem_Malloc((size_t)(n ? n : 1) * sizeof *blocks);
    if (!blocks) return PyErr_NoMemory();
    int is_whole = address && n_before == HEX;
    for (Py_ssize_t i = 0; i < n && is_whole; i++) {
        if (get_bytes(PyList_GetItem(given, i), &blocks[i]) < 0) goto done;
        const char *at = blocks[i].at, *const end = at + blocks[i].n;
        is_whole = at == end || end[-1] == '\n';
        for (size += blocks[i].n; is_whole && at < end; at++, size += (Py_ssize_t)AROUND)
            at = memchr(at, '\n', (size_t)(end - at));
    }
    if (!is_whole) {
        PyErr_SetString(PyExc_ValueError, "a digest has 64 digits, and each body ends in a line break");
        goto done;
    }
    if (!(lines = PyBytes_FromStringAndSize(NULL, size))) goto done;
    char *const start = PyBytes_AsString(lines), *to = start, prev[HEX];
    uint64_t seq = first;
    memcpy(prev, before, HEX);
    PyThreadState *state = PyEval_SaveThread();
    for (Py_ssize_t i = 0; i < n; i++)
        to = chain(to, blocks[i].at, (size_t)blocks[i].n, (Sha256)(uintptr_t)address, &seq, prev);
    PyEval_RestoreThread(state);
    if (_PyBytes_Resize(&lines, to - start) == 0)
        lines = Py_BuildValue("NKy#", lines, (unsigned long long)seq, prev, (Py_ssize_t)HEX);
done:
    PyMem_Free(blocks);
    return lines;
}

/* The text around what differs in lines of a kind: as it is known, or as it is made now. A new reference. */
static PyObject *template_of(PyObject *kind, PyObject *known, PyObject *make) {
    PyObject *found = PyDict_GetItemWithError(known, kind);
    if (found) return Py_NewRef(found);
    return PyErr_Occurred() ? NULL : PyObject_CallFunctionObjArgs(make, kind, NULL);
}

/* Add a piece of `used` bytes to the list, if there are any. */
static int end_piece(PyObject *pieces, const char *piece, Py_ssize_t used) {
    if (!used) return 0;
    PyObject *made = PyBytes_FromStringAndSize(piece, used);
    const int failed = !made || PyList_Append(pieces, made) < 0;
    Py_XDECREF(made);
    return failed ? -1 : 0;
}

static PyObject *pieces(PyObject *module, PyObject *args) {
    PyObject *requests, *known, *make, *made, *last = NULL, *template = NULL;
    Py_ssize_t most, used = 0, room;
    if (!PyArg_ParseTuple(args, "O!O!On:pieces", &PyList_Type, &requests, &PyDict_Type, &known, &make, &most)) return NULL;
    char *piece = PyMem_Malloc((size_t)(room = most > 0 ? most : 1)), *seconds = NULL, text[20];
    if (!(made = PyList_New(0)) || !piece) goto failed;
    int64_t second = INT64_MIN;
    Text parts[AROUND_IDS] = {{0}}, id;
    int is_told = 0;
    for (Py_ssize_t i = 0; i < PyList_Size(requests); i++) {
        PyObject *request = PyList_GetItem(requests, i);
        if (!PyTuple_Check(request) || PyTuple_Size(request) != REQUEST) {
            PyErr_SetString(PyExc_TypeError, "a request is a tuple of 4");
            goto failed;
        }
        PyObject *kind = PyTuple_GetItem(request, 3);
        const int is_same = last ? PyObject_RichCompareBool(kind, last, Py_EQ) : 0;
        if (is_same < 0) goto failed;
        if (!is_same) {
            Py_XDECREF(template);
            if (!(template = template_of(kind, known, make))) goto failed;
            last = kind;
            if ((is_told = template != Py_None)) {
                if (!PyTuple_Check(template) || PyTuple_Size(template) != AROUND_IDS) {
                    PyErr_SetString(PyExc_TypeError, "a template is a tuple of 4, or None");
                    goto failed;
                }
                for (int k = 0; k < AROUND_IDS; k++)
                    if (get_bytes(PyTuple_GetItem(template, k), &parts[k]) < 0) goto failed;
            }
        }
        if (!is_told) continue;
        const double at = PyFloat_AsDouble(PyTuple_GetItem(request, 0)), took = PyFloat_AsDouble(PyTuple_GetItem(request, 2));
        if (PyErr_Occurred() || !(id.at = PyUnicode_AsUTF8AndSize(PyTuple_GetItem(request, 1), &id.n))) goto failed;
        if (!(seconds = PyOS_double_to_string(took, 'f', 6, 0, NULL))) goto failed;
        const Py_ssize_t n_seconds = (Py_ssize_t)strlen(seconds);
        Py_ssize_t size = TIMESTAMP + id.n + n_seconds + 1;
        for (int k = 0; k < AROUND_IDS; k++) size += parts[k].n;
        if (used + size > most) {
            if (end_piece(made, piece, used) < 0) goto failed;
            used = 0;
        }
        if (size > room) { /* a line that is longer than a piece is a piece of its own */
            char *const larger = PyMem_Realloc(piece, (size_t)size);
            if (!larger) goto failed;
            piece = larger;
            room = size;
        }
        char *to = put(piece + used, parts[0].at, parts[0].n);
        to = put_time(to, at, &second, text);
        to = put(to, parts[1].at, parts[1].n);
        to = put(to, id.at, id.n);
        to = put(to, parts[2].at, parts[2].n);
        to = put(to, seconds, n_seconds);
        to = put(to, parts[3].at, parts[3].n);
        *to++ = '\n';
        used = to - piece;
        PyMem_Free(seconds);
        seconds = NULL;
    }
    if (end_piece(made, piece, used) < 0) goto failed;
    Py_XDECREF(template);
    PyMem_Free(piece);
    return made;
failed:
    if (!PyErr_Occurred()) PyErr_NoMemory();
    PyMem_Free(seconds);
    PyMem_Free(piece);
    Py_XDECREF(template);
    Py_XDECREF(made);
    return NULL;
}

static PyMethodDef METHODS[] = {
    {"bodies", bodies, METH_VARARGS, "bodies(notes, answers, offset): bodies of records, a line each; None where not all is ASCII."},
    {"chained", chained, METH_VARARGS, "chained(sha256, seq, prev, blocks): lines, the number after theirs, the last digest."},
    {"pieces", pieces, METH_VARARGS, "pieces(requests, known, make, most): lines of the log, in pieces of so many bytes at most."},
    {NULL, NULL, 0, NULL},
};
static PyModuleDef_Slot SLOTS[] = {{0, NULL}};
static PyModuleDef MODULE = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_lines",
    .m_methods = METHODS,
    .m_slots = SLOTS,
};

PyMODINIT_FUNC PyInit__lines(void) { return PyModuleDef_Init(&MODULE); }
