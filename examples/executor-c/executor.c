/* A Rain executor in C11, without any library: it speaks the public protocol `msgpack-1` (docs/executors.md).
 *
 * A worker starts it for tasks of the types "c/..."; it runs one task after another until the connection ends.
 */
#define _POSIX_C_SOURCE 200809L
#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { MAX_FRAME = 128 << 20, INLINE_LIMIT = 64 << 10, MAX_DEPTH = 100 };

static void die(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(1);
}

/* --- bytes: what is being written, and values ----------------------------------------------------- */

typedef struct {
    uint8_t *data;
    size_t size, capacity;
} Bytes;

static void append(Bytes *bytes, const void *data, size_t size) {
    if (bytes->capacity - bytes->size < size) {
        bytes->capacity = 2 * (bytes->size + size);
        bytes->data = realloc(bytes->data, bytes->capacity);
        if (bytes->data == NULL)
            die("out of memory");
    }
    if (size > 0)
        memcpy(bytes->data + bytes->size, data, size);
    bytes->size += size;
}

static void append_text(Bytes *bytes, const char *text) { append(bytes, text, strlen(text)); }

static void read_whole_file(Bytes *bytes, const char *path) {
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        die("cannot open %s: %s", path, strerror(errno));
    char piece[1 << 16];
    for (size_t size; (size = fread(piece, 1, sizeof piece, file)) > 0;)
        append(bytes, piece, size);
    if (ferror(file))
        die("cannot read %s", path);
    fclose(file);
}

/* --- MessagePack: writing ------------------------------------------------------------------------ */

static void put_number(Bytes *out, uint8_t type, uint64_t number, int width) {
    uint8_t encoded[9] = {type};
    for (int i = 0; i < width; i++)
        encoded[1 + i] = (uint8_t)(number >> (8 * (width - 1 - i)));
    append(out, encoded, 1 + (size_t)width);
}

static void put_array(Bytes *out, uint32_t count) { put_number(out, 0xdc, count, 2); }
static void put_map(Bytes *out, uint32_t count) { put_number(out, 0xde, count, 2); }
static void put_int(Bytes *out, int64_t number) { put_number(out, 0xd3, (uint64_t)number, 8); }
static void put_bool(Bytes *out, bool value) { put_number(out, value ? 0xc3 : 0xc2, 0, 0); }

static void put_text_of(Bytes *out, const void *text, size_t size) {
    put_number(out, 0xdb, size, 4);
    append(out, text, size);
}

static void put_text(Bytes *out, const char *text) { put_text_of(out, text, strlen(text)); }

static void put_binary(Bytes *out, const void *data, size_t size) {
    put_number(out, 0xc6, size, 4);
    append(out, data, size);
}

/* --- MessagePack: reading ------------------------------------------------------------------------- */

typedef struct {
    const uint8_t *at, *end;
} Cursor;

typedef enum { NIL, BOOL, INT, FLOAT, TEXT, BINARY, ARRAY, MAP, EXTENSION } Kind;

typedef struct {
    Kind kind;
    int64_t number;      /* BOOL, INT */
    double real;         /* FLOAT */
    const uint8_t *data; /* TEXT, BINARY, EXTENSION */
    size_t size;         /* their bytes, or the elements of ARRAY and MAP */
} Item;

static const uint8_t *take(Cursor *in, size_t size) {
    if ((size_t)(in->end - in->at) < size)
        die("a message ends too early");
    const uint8_t *data = in->at;
    in->at += size;
    return data;
}

static uint64_t take_number(Cursor *in, int width) {
    const uint8_t *data = take(in, (size_t)width);
    uint64_t number = 0;
    for (int i = 0; i < width; i++)
        number = number << 8 | data[i];
    return number;
}

static Item sized(Cursor *in, Kind kind, size_t size) {
    Item item = {.kind = kind, .size = size};
    if (kind != ARRAY && kind != MAP)
        item.data = take(in, size);
    return item;
}

/* Read one item; the elements of an array or map follow as items of their own. */
static Item next(Cursor *in) {
    uint8_t type = *take(in, 1);
    if (type <= 0x7f)
        return (Item){.kind = INT, .number = type};
    if (type >= 0xe0)
        return (Item){.kind = INT, .number = (int8_t)type};
    if (type <= 0x8f)
        return sized(in, MAP, type & 0x0f);
    if (type <= 0x9f)
        return sized(in, ARRAY, type & 0x0f);
    if (type <= 0xbf)
        return sized(in, TEXT, type & 0x1f);
    if (type == 0xc0)
        return (Item){.kind = NIL};
    if (type == 0xc2 || type == 0xc3)
        return (Item){.kind = BOOL, .number = type & 1};
    if (type >= 0xc4 && type <= 0xc6)
        return sized(in, BINARY, take_number(in, 1 << (type - 0xc4)));
    if (type >= 0xc7 && type <= 0xc9)
        return sized(in, EXTENSION, take_number(in, 1 << (type - 0xc7)) + 1);
    if (type == 0xca) {
        uint32_t bits = (uint32_t)take_number(in, 4);
        float real;
        memcpy(&real, &bits, sizeof real);
        return (Item){.kind = FLOAT, .real = real};
    }
    if (type == 0xcb) {
        Item item = {.kind = FLOAT};
        uint64_t bits = take_number(in, 8);
        memcpy(&item.real, &bits, sizeof item.real);
        return item;
    }
    if (type >= 0xcc && type <= 0xcf)
        return (Item){.kind = INT, .number = (int64_t)take_number(in, 1 << (type - 0xcc))};
    if (type >= 0xd0 && type <= 0xd3) {
        int width = 1 << (type - 0xd0), unused = 64 - 8 * width;
        return (Item){.kind = INT, .number = (int64_t)(take_number(in, width) << unused) >> unused};
    }
    if (type >= 0xd4 && type <= 0xd8)
        return sized(in, EXTENSION, ((size_t)1 << (type - 0xd4)) + 1);
    if (type >= 0xd9 && type <= 0xdb)
        return sized(in, TEXT, take_number(in, 1 << (type - 0xd9)));
    if (type == 0xdc || type == 0xdd)
        return sized(in, ARRAY, take_number(in, type == 0xdc ? 2 : 4));
    if (type == 0xde || type == 0xdf)
        return sized(in, MAP, take_number(in, type == 0xde ? 2 : 4));
    die("a message has the unknown type 0x%02x", type);
    return (Item){.kind = NIL};
}

static void skip(Cursor *in, int depth) {
    if (depth > MAX_DEPTH)
        die("a message is nested too deeply");
    Item item = next(in);
    size_t elements = item.kind == ARRAY ? item.size : item.kind == MAP ? 2 * item.size : 0;
    for (size_t i = 0; i < elements; i++)
        skip(in, depth + 1);
}

static Item expect(Cursor *in, Kind kind, const char *what) {
    Item item = next(in);
    if (item.kind != kind)
        die("a message has no proper %s", what);
    return item;
}

static bool is_text(Item item, const char *text) {
    return item.kind == TEXT && item.size == strlen(text) && memcmp(item.data, text, item.size) == 0;
}

/* Find an entry of the map at `in`: the place of its value, or false. */
static bool find(Cursor in, const char *key, Cursor *value) {
    Item map = expect(&in, MAP, key);
    for (size_t i = 0; i < map.size; i++) {
        bool found = is_text(next(&in), key);
        if (found) {
            *value = in;
            return true;
        }
        skip(&in, 0);
    }
    return false;
}

static Cursor entry(Cursor map, const char *key) {
    Cursor value = map;
    if (!find(map, key, &value))
        die("a message has no '%s'", key);
    return value;
}

/* --- frames --------------------------------------------------------------------------------------- */

static int connection;

static void send_all(const void *data, size_t size) {
    const char *at = data;
    while (size > 0) {
        ssize_t sent = send(connection, at, size, MSG_NOSIGNAL);
        if (sent < 0 && errno != EINTR)
            exit(0); /* the worker has ended */
        if (sent > 0) {
            at += sent;
            size -= (size_t)sent;
        }
    }
}

static void send_frame(const Bytes *payload) {
    if (payload->size > MAX_FRAME)
        die("a message of %zu bytes is too large", payload->size);
    uint8_t length[4];
    for (int i = 0; i < 4; i++)
        length[i] = (uint8_t)(payload->size >> (8 * i));
    send_all(length, sizeof length);
    send_all(payload->data, payload->size);
}

static void receive_all(void *data, size_t size) {
    char *at = data;
    while (size > 0) {
        ssize_t received = recv(connection, at, size, 0);
        if (received == 0 || (received < 0 && errno != EINTR))
            exit(0); /* the worker has ended */
        if (received > 0) {
            at += received;
            size -= (size_t)received;
        }
    }
}

static void receive_frame(Bytes *payload) {
    uint8_t length[4];
    receive_all(length, sizeof length);
    size_t size = length[0] | (size_t)length[1] << 8 | (size_t)length[2] << 16 | (size_t)length[3] << 24;
    if (size > MAX_FRAME)
        die("a frame of %zu bytes is too large", size);
    payload->data = malloc(size + 1);
    if (payload->data == NULL)
        die("out of memory");
    payload->size = payload->capacity = size;
    receive_all(payload->data, size);
}

static void connect_to_worker(void) {
    const char *variable = getenv("RAIN_EXECUTOR_SOCKET"), *number = getenv("RAIN_EXECUTOR_ID");
    if (variable == NULL || number == NULL)
        die("RAIN_EXECUTOR_SOCKET is not set: executors are started by workers");
    char *path = strdup(variable), *slash = path == NULL ? NULL : strrchr(path, '/');
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (slash == NULL || strlen(slash + 1) >= sizeof address.sun_path)
        die("%s is not the path of a socket", variable);
    *slash = '\0';
    if (chdir(path) != 0) /* the whole path may be longer than the address of a socket can be */
        die("cannot enter %s: %s", path, strerror(errno));
    strcpy(address.sun_path, slash + 1);
    free(path);
    connection = socket(AF_UNIX, SOCK_STREAM, 0);
    if (connection < 0 || connect(connection, (struct sockaddr *)&address, sizeof address) != 0)
        die("cannot connect to %s: %s", variable, strerror(errno));

    Bytes out = {0};
    put_array(&out, 2);
    put_text(&out, "register");
    put_map(&out, 3);
    put_text(&out, "protocol");
    put_text(&out, "msgpack-1");
    put_text(&out, "executor_id");
    put_int(&out, strtoll(number, NULL, 10));
    put_text(&out, "executor_type");
    put_text(&out, "c");
    send_frame(&out);
    free(out.data);
}

/* --- methods -------------------------------------------------------------------------------------- */

/* What a method works on. It writes its output, or an error text. */
typedef struct {
    Bytes *inputs;
    size_t input_count;
    Item config; /* NIL if there is none */
    Bytes output;
    Bytes error;
    int64_t answer_for; /* number of the task */
} Call;

/* The first input behind the prefix in the config, by default "Hello ". */
static void hello(Call *call) {
    if (call->config.kind == TEXT)
        append(&call->output, call->config.data, call->config.size);
    else
        append_text(&call->output, "Hello ");
    if (call->input_count > 0)
        append(&call->output, call->inputs[0].data, call->inputs[0].size);
}

/* All inputs, one behind the other, in capital letters. */
static void upper(Call *call) {
    for (size_t i = 0; i < call->input_count; i++)
        append(&call->output, call->inputs[i].data, call->inputs[i].size);
    for (size_t i = 0; i < call->output.size; i++)
        call->output.data[i] = (uint8_t)toupper(call->output.data[i]);
}

/* The sum of the numbers which the inputs hold as text. */
static void sum(Call *call) {
    double total = 0;
    for (size_t i = 0; i < call->input_count; i++) {
        Bytes *input = &call->inputs[i];
        append(input, "", 1);
        char *end, *text = (char *)input->data;
        double number = strtod(text, &end);
        if (end == text || *end != '\0') {
            append_text(&call->error, "This input is not a number: ");
            append_text(&call->error, text);
            return;
        }
        total += number;
    }
    char text[64];
    snprintf(text, sizeof text, "%.15g", total);
    append_text(&call->output, text);
}

/* Fails with the text in the config. */
static void fail(Call *call) {
    if (call->config.kind == TEXT)
        append(&call->error, call->config.data, call->config.size);
    else
        append_text(&call->error, "Failed as it should");
}

/* The others misbehave on purpose: Rain's tests see how a worker takes it. */

static void garbage(Call *call) {
    (void)call;
    send_all("\x04\x00\x00\x00\xc1\xc1\xc1\xc1", 8);
    pause();
}

static void wrong_id(Call *call) { call->answer_for++; }

static void leave(Call *call) {
    (void)call;
    puts("on its way out");
    fputs("nothing works\n", stderr);
    exit(7);
}

static void hang(Call *call) {
    (void)call;
    pause();
}

static const struct {
    const char *name;
    void (*run)(Call *call);
} METHODS[] = {{"c/hello", hello}, {"c/upper", upper},       {"c/sum", sum},    {"c/fail", fail},
               {"c/exit", leave},  {"c/garbage", garbage}, {"c/hang", hang}, {"c/wrong_id", wrong_id}};

static void run_method(Item type, Call *call) {
    for (size_t i = 0; i < sizeof METHODS / sizeof *METHODS; i++)
        if (is_text(type, METHODS[i].name)) {
            METHODS[i].run(call);
            return;
        }
    append_text(&call->error, "There is no method ");
    append(&call->error, type.data, type.size);
}

/* --- calls ---------------------------------------------------------------------------------------- */

static void load_value(Cursor location, Bytes *value) {
    if (expect(&location, ARRAY, "location").size != 2)
        die("a message has no proper location");
    Item kind = next(&location), content = next(&location);
    if (is_text(kind, "memory") && content.kind == BINARY) {
        append(value, content.data, content.size);
    } else if (is_text(kind, "path") && content.kind == TEXT) {
        char *path = strndup((const char *)content.data, content.size);
        if (path == NULL)
            die("out of memory");
        read_whole_file(value, path);
        free(path);
    } else {
        die("a value is neither in memory nor in a file");
    }
}

/* A location: small values ride in the message, large ones become files, which the worker takes away. */
static void put_location(Bytes *out, const Bytes *value) {
    static const char name[] = "/output";
    put_array(out, 2);
    if (value->size < INLINE_LIMIT) {
        put_text(out, "memory");
        put_binary(out, value->data, value->size);
        return;
    }
    char path[4096];
    if (getcwd(path, sizeof path - sizeof name) == NULL)
        die("cannot tell the work directory: %s", strerror(errno));
    strcat(path, name);
    FILE *file = fopen(path, "wb");
    if (file == NULL || fwrite(value->data, 1, value->size, file) != value->size || fclose(file) != 0)
        die("cannot write %s: %s", path, strerror(errno));
    put_text(out, "path");
    put_text(out, path);
}

static void send_result(int64_t session, const Call *call, size_t outputs) {
    bool success = call->error.size == 0;
    Bytes out = {0};
    put_array(&out, 2);
    put_text(&out, "result");
    put_map(&out, 3);
    put_text(&out, "task");
    put_array(&out, 2);
    put_int(&out, session);
    put_int(&out, call->answer_for);
    put_text(&out, "success");
    put_bool(&out, success);
    if (success) {
        put_text(&out, "outputs");
        put_array(&out, (uint32_t)outputs);
        for (size_t i = 0; i < outputs; i++) {
            put_map(&out, 1);
            put_text(&out, "location");
            put_location(&out, &call->output);
        }
    } else {
        put_text(&out, "info");
        put_map(&out, 1);
        put_text(&out, "error");
        put_text_of(&out, call->error.data, call->error.size);
    }
    send_frame(&out);
    free(out.data);
}

static void answer(Cursor data) {
    Cursor spec = entry(data, "spec"), id = entry(spec, "id"), type = entry(spec, "task_type"), config;
    Cursor inputs = entry(data, "inputs"), outputs = entry(data, "outputs");
    if (expect(&id, ARRAY, "id").size != 2)
        die("a message has no proper id");
    int64_t session = expect(&id, INT, "id").number;
    Call call = {.answer_for = expect(&id, INT, "id").number};
    if (find(spec, "config", &config))
        call.config = next(&config);

    call.input_count = expect(&inputs, ARRAY, "inputs").size;
    call.inputs = calloc(call.input_count + 1, sizeof *call.inputs);
    if (call.inputs == NULL)
        die("out of memory");
    for (size_t i = 0; i < call.input_count; i++) {
        load_value(entry(inputs, "location"), &call.inputs[i]);
        skip(&inputs, 0);
    }
    size_t output_count = expect(&outputs, ARRAY, "outputs").size;
    if (output_count > 1)
        append_text(&call.error, "The methods of this executor have one output at most");
    else
        run_method(expect(&type, TEXT, "task type"), &call);
    send_result(session, &call, output_count);

    for (size_t i = 0; i < call.input_count; i++)
        free(call.inputs[i].data);
    free(call.inputs);
    free(call.output.data);
    free(call.error.data);
}

int main(void) {
    connect_to_worker();
    for (;;) {
        Bytes payload = {0};
        receive_frame(&payload);
        Cursor in = {payload.data, payload.data + payload.size};
        if (expect(&in, ARRAY, "form").size != 2)
            die("a message is not an array of two elements");
        if (is_text(next(&in), "call"))
            answer(in);
        free(payload.data);
    }
}
