// cuDNN's graph API on the CPU: descriptors with typed attributes, heuristics, engines, plans and variant packs, for
// graphs of one convolution. What a call refuses, and with which status, is what cuDNN 9.19 does, but for two mistakes
// that it does not notice: an operation of tensors that are not finalized, and a graph in which two tensors have one id.
//
// The engines compute by the older API's emulated algorithms. The heuristics first offer those that must not be taken;
// to run one that is not deterministic or has more scratch memory than there is ends the program. Then comes, in turn
// with each search for one convolution, one of two configurations of an engine that round differently.
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <vector>
#define API extern "C" __attribute__((visibility("default"))) int
extern "C" void emulated_took(double milliseconds);
extern "C" void emulated_descriptor(int more);
// The older API, which computes.
extern "C" {
int cudnnCreateTensorDescriptor(void **);
int cudnnDestroyTensorDescriptor(void *);
int cudnnSetTensor4dDescriptor(void *, int format, int type, int n, int c, int h, int w);
int cudnnCreateFilterDescriptor(void **);
int cudnnDestroyFilterDescriptor(void *);
int cudnnSetFilter4dDescriptor(void *, int type, int format, int k, int c, int h, int w);
int cudnnCreateConvolutionDescriptor(void **);
int cudnnDestroyConvolutionDescriptor(void *);
int cudnnSetConvolution2dDescriptor(void *, int ph, int pw, int sh, int sw, int dh, int dw, int mode, int type);
int cudnnSetConvolutionMathType(void *, int);
int cudnnConvolutionForward(void *, const float *, void *, const void *, void *, const void *, void *, int, void *, size_t, const float *, void *, void *);
int cudnnConvolutionBackwardData(void *, const float *, void *, const void *, void *, const void *, void *, int, void *, size_t, const float *, void *,
                                 void *);
int cudnnConvolutionBackwardFilter(void *, const float *, void *, const void *, void *, const void *, void *, int, void *, size_t, const float *, void *,
                                   void *);
}
// Statuses.
static const int NOT_INITIALIZED = 1001, BAD = 2000, BAD_NULL = 2002, MISALIGNED = 2003, NOT_FINALIZED = 2004, OUT_OF_BOUND = 2005, DUPLICATED = 2009,
                 WRONG_TYPE = 2010, WRONG_DESCRIPTOR = 2012, NOT_SUPPORTED = 3000, PATTERN = 3001, LAYOUT = 3004, INTERNAL = 4003;
// Types of attributes.
enum { HANDLE = 0, DATA_TYPE = 1, INT64 = 3, FLOAT = 4, POINTER = 6, MODE = 7, HEURISTIC = 8, KNOB = 9, NOTE = 11, DESCRIPTOR = 15, BEHAVIOR = 19 };
// Types of descriptors.
enum { CONVOLUTION = 1, ENGINE = 2, CONFIG = 3, HEURISTICS = 4, PLAN = 5, KNOB_CHOICE = 7, FORWARD = 10, WEIGHT = 11, INPUT = 12, GRAPH = 15, PACK = 16, TENSOR = 17 };
static size_t bytes(int type) { return type == HANDLE || type == INT64 || type == POINTER || type == DESCRIPTOR ? 8 : 4; }

struct Descriptor;
using Shared = std::shared_ptr<Descriptor>;
struct Value {
    std::vector<uint64_t> numbers;
    std::vector<Shared> descriptors;
};
// A plan's convolution, as the older API takes it.
struct Older {
    void *x = nullptr, *w = nullptr, *y = nullptr, *convolution = nullptr;
    ~Older() {
        cudnnDestroyTensorDescriptor(x);
        cudnnDestroyFilterDescriptor(w);
        cudnnDestroyTensorDescriptor(y);
        cudnnDestroyConvolutionDescriptor(convolution);
    }
};
struct Descriptor {
    int type;
    bool finalized = false;
    std::map<int, Value> values;
    std::shared_ptr<Older> older;
    explicit Descriptor(int type) : type(type) { emulated_descriptor(1); }
    ~Descriptor() { emulated_descriptor(-1); }
    long number(int attribute, size_t i = 0) const { return values.at(attribute).numbers[i]; }
    const Shared &part(int attribute) const { return values.at(attribute).descriptors[0]; }
    float factor(int attribute, float otherwise) const {
        if (!values.count(attribute)) return otherwise;
        uint32_t bits = number(attribute);
        float value;
        memcpy(&value, &bits, 4);
        return value;
    }
};
// What can be set: the attribute, its type, how many elements, and whether it must be set.
struct Rule {
    int attribute, type;
    long least, most;
    bool needed;
};
static const std::map<int, std::vector<Rule>> RULES = {
    {TENSOR, {{900, INT64, 1, 1, true}, {901, DATA_TYPE, 1, 1, true}, {902, INT64, 1, 8, true}, {903, INT64, 1, 8, true}, {906, INT64, 1, 1, true}}},
    {CONVOLUTION,
     {{100, DATA_TYPE, 1, 1, true}, {101, MODE, 1, 1, true}, {102, INT64, 1, 3, true}, {103, INT64, 1, 3, true}, {104, INT64, 1, 3, true},
      {105, INT64, 1, 3, true}, {106, INT64, 1, 1, true}}},
    {FORWARD,
     {{700, FLOAT, 1, 1, false}, {701, FLOAT, 1, 1, false}, {702, DESCRIPTOR, 1, 1, true}, {703, DESCRIPTOR, 1, 1, true}, {704, DESCRIPTOR, 1, 1, true},
      {705, DESCRIPTOR, 1, 1, true}}},
    {INPUT,
     {{706, FLOAT, 1, 1, false}, {707, FLOAT, 1, 1, false}, {708, DESCRIPTOR, 1, 1, true}, {709, DESCRIPTOR, 1, 1, true}, {710, DESCRIPTOR, 1, 1, true},
      {711, DESCRIPTOR, 1, 1, true}}},
    {WEIGHT,
     {{712, FLOAT, 1, 1, false}, {713, FLOAT, 1, 1, false}, {714, DESCRIPTOR, 1, 1, true}, {715, DESCRIPTOR, 1, 1, true}, {716, DESCRIPTOR, 1, 1, true},
      {717, DESCRIPTOR, 1, 1, true}}},
    {GRAPH, {{800, HANDLE, 1, 1, true}, {801, DESCRIPTOR, 1, 1, true}}},
    {HEURISTICS, {{200, HEURISTIC, 1, 1, false}, {201, DESCRIPTOR, 1, 1, true}}},
    {ENGINE, {{1300, DESCRIPTOR, 1, 1, true}, {1301, INT64, 1, 1, true}}},
    {KNOB_CHOICE, {{600, KNOB, 1, 1, true}, {601, INT64, 1, 1, true}}},
    {CONFIG, {{300, DESCRIPTOR, 1, 1, true}, {302, DESCRIPTOR, 0, 44, false}}},
    {PLAN, {{400, HANDLE, 1, 1, true}, {401, DESCRIPTOR, 1, 1, true}}},
    {PACK, {{1000, INT64, 1, 64, true}, {1001, POINTER, 1, 64, true}, {1003, POINTER, 1, 1, false}}},
};
// The attributes of an operation: its convolution, weight, input, output and factors; and the descriptor's type.
struct Operation {
    int type, convolution, w, x, y, alpha, beta;
};
static const Operation OPERATIONS[] = {{FORWARD, 702, 703, 704, 705, 700, 701}, {INPUT, 708, 709, 710, 711, 706, 707}, {WEIGHT, 714, 715, 716, 717, 712, 713}};
static const Operation *operation(int type) {
    for (const Operation &o : OPERATIONS)
        if (o.type == type) return &o;
    return nullptr;
}

// An engine: its notes in f32 and in bf16, the bytes of scratch memory that it asks for, the milliseconds that it takes
// for 1 x 1 and for larger kernels, and the older API's algorithm that computes it. The older API takes 2 milliseconds.
struct Engine {
    long index;
    std::vector<uint64_t> notes32, notes16, behaviors;
    size_t workspace;
    double small, large;
    int algorithm;
    enum { FINE, NO_PLAN, NO_RUN, NEVER } is;
};
static const int GOOD = 1, ROUNDED = 3, BACKWARDS = 4, FMA = 3;
static const size_t WORK = 1000;
static const long ENGINES = 16, KNOBBED = 8, FALLBACK = 0, ROUNDING = 7, UNSAFE = 3;
// Notes: 0 tensor cores, 1 factors rounded, 4 not deterministic, 9 strict about NaN. Behavior 0: compiled when a plan is made.
static const Engine TABLE[] = {
    {FALLBACK, {9}, {9}, {}, 0, 8, 8, GOOD, Engine::FINE},
    {UNSAFE, {4}, {2, 4}, {}, WORK, 1, 1, GOOD, Engine::NEVER},
    {5, {}, {0}, {}, size_t(1) << 40, 1, 1, GOOD, Engine::NEVER},
    {ROUNDING, {0}, {0}, {}, WORK, 3, 1, ROUNDED, Engine::FINE},
    {KNOBBED, {}, {0}, {}, WORK, 3.5, 1.5, GOOD, Engine::FINE},
    {10, {}, {0}, {}, WORK, 1, 1, GOOD, Engine::NO_PLAN},
    {11, {}, {0}, {0}, WORK, 1, 1, GOOD, Engine::NEVER},
    {12, {}, {0}, {}, WORK, 1, 1, GOOD, Engine::NO_RUN},
    {13, {0, 1}, {0, 1}, {}, WORK, 1, 1, ROUNDED, Engine::NEVER},
};
static const Engine *engine(long index) {
    for (const Engine &e : TABLE)
        if (e.index == index) return &e;
    return nullptr;
}
// The one knob, of the one engine that has one: the order of its sums.
static const uint64_t ORDER = 2;

// The real one names the check that failed.
extern "C" __attribute__((visibility("default"))) void cudnnGetLastErrorString(char *to, size_t size) { snprintf(to, size, "an emulated check"); }
static Shared *shared(void *d) { return (Shared *)d; }
API cudnnBackendCreateDescriptor(int type, void **to) {
    if (!to) return BAD_NULL;
    if (!RULES.count(type)) return INTERNAL;
    *to = new Shared(std::make_shared<Descriptor>(type));
    return 0;
}
API cudnnBackendDestroyDescriptor(void *d) {
    if (!d) return BAD_NULL;
    delete shared(d);
    return 0;
}
API cudnnBackendSetAttribute(void *descriptor, int attribute, int type, int64_t count, const void *elements) {
    if (!descriptor || (count && !elements)) return BAD_NULL;
    Descriptor &d = **shared(descriptor);
    if (d.finalized) return BAD;
    for (const Rule &rule : RULES.at(d.type)) {
        if (rule.attribute != attribute) continue;
        if (rule.type != type) return WRONG_TYPE;
        if (count < rule.least || count > rule.most) return BAD;
        Value value;
        for (int64_t i = 0; i < count; ++i) {
            if (type == DESCRIPTOR) {
                void *part = ((void **)elements)[i];
                if (!part) return BAD_NULL;
                if (!(*shared(part))->finalized) return NOT_FINALIZED;
                value.descriptors.push_back(*shared(part));
            } else {
                uint64_t number = 0;
                memcpy(&number, (const char *)elements + i * bytes(type), bytes(type));
                value.numbers.push_back(number);
            }
        }
        d.values[attribute] = value;
        return 0;
    }
    return BAD;
}

static bool is(const Shared &part, int type) { return part->type == type; }
static int tensor(const Descriptor &d) {
    size_t dims = d.values.at(902).numbers.size();
    long type = d.number(901), size = type == 0 ? 4 : 2, alignment = d.number(900);
    if (dims != 4 || d.values.at(903).numbers.size() != dims) return BAD;
    if (type != 0 && type != 9) return 3003;
    return alignment > 0 && alignment % size == 0 ? 0 : BAD;
}
static int convolution(const Descriptor &d) {
    size_t dims = d.number(106);
    for (int attribute : {102, 103, 104, 105})
        if (d.values.at(attribute).numbers.size() != dims) return BAD;
    return dims == 2 && d.number(100) == 0 && d.number(101) == 1 ? 0 : NOT_SUPPORTED;
}
static int checked(const Descriptor &d, const Operation &o) {
    if (!is(d.part(o.x), TENSOR) || !is(d.part(o.w), TENSOR) || !is(d.part(o.y), TENSOR) || !is(d.part(o.convolution), CONVOLUTION)) return WRONG_DESCRIPTOR;
    const Descriptor &x = *d.part(o.x), &w = *d.part(o.w), &y = *d.part(o.y), &c = *d.part(o.convolution);
    auto side = [&](int i) { return (x.number(902, 2 + i) + c.number(105, i) + c.number(104, i) - w.number(902, 2 + i)) / c.number(103, i) + 1; };
    bool fits = x.number(902, 0) == y.number(902, 0) && x.number(902, 1) == w.number(902, 1) && y.number(902, 1) == w.number(902, 0) &&
                y.number(902, 2) == side(0) && y.number(902, 3) == side(1) && x.number(901) == w.number(901) && x.number(901) == y.number(901);
    return fits && d.factor(o.alpha, 1) == 1 ? 0 : BAD;
}
// Channels lie next to each other, then columns, rows and images.
static bool packed(const Descriptor &d) {
    long c = d.number(902, 1), h = d.number(902, 2), w = d.number(902, 3);
    return d.number(903, 0) == c * h * w && d.number(903, 1) == 1 && d.number(903, 2) == c * w && d.number(903, 3) == c;
}
static int graph(const Descriptor &d) {
    const Descriptor &o = *d.part(801);
    const Operation *names = operation(o.type);
    if (!names) return WRONG_DESCRIPTOR;
    const Descriptor &x = *o.part(names->x), &w = *o.part(names->w), &y = *o.part(names->y), &c = *o.part(names->convolution);
    if (std::set<long>{x.number(906), w.number(906), y.number(906)}.size() != 3) return DUPLICATED;
    if (!packed(x) || !packed(w) || !packed(y)) return LAYOUT;
    for (int i = 0; i < 2; ++i)
        if (c.number(102, i) != 1 || c.number(104, i) != c.number(105, i)) return NOT_SUPPORTED;
    // So that a program finds convolutions without a plan: kernels of an even height.
    return w.number(902, 2) % 2 ? 0 : PATTERN;
}
static int config(const Descriptor &d) {
    if (!is(d.part(300), ENGINE)) return WRONG_DESCRIPTOR;
    if (!d.values.count(302)) return 0;
    for (const Shared &choice : d.values.at(302).descriptors) {
        if (!is(choice, KNOB_CHOICE)) return WRONG_DESCRIPTOR;
        if (d.part(300)->number(1301) != KNOBBED || (uint64_t)choice->number(600) != ORDER) return NOT_SUPPORTED;
        if (choice->number(601) < 0 || choice->number(601) > 1) return OUT_OF_BOUND;
    }
    return 0;
}
static const Descriptor &engine_of(const Descriptor &plan) { return *plan.part(401)->part(300); }
static const Descriptor &operation_of(const Descriptor &plan) { return *engine_of(plan).part(1300)->part(801); }
static int plan(Descriptor &d) {
    if (!is(d.part(401), CONFIG)) return WRONG_DESCRIPTOR;
    if (engine(engine_of(d).number(1301))->is == Engine::NO_PLAN) return NOT_SUPPORTED;
    const Descriptor &o = operation_of(d);
    const Operation &names = *operation(o.type);
    auto size = [&](int which, int i) { return (int)o.part(which)->number(902, i); };
    const Descriptor &c = *o.part(names.convolution);
    int type = o.part(names.x)->number(901);
    d.older = std::make_shared<Older>();
    cudnnCreateTensorDescriptor(&d.older->x);
    cudnnCreateFilterDescriptor(&d.older->w);
    cudnnCreateTensorDescriptor(&d.older->y);
    cudnnCreateConvolutionDescriptor(&d.older->convolution);
    cudnnSetTensor4dDescriptor(d.older->x, 1, type, size(names.x, 0), size(names.x, 1), size(names.x, 2), size(names.x, 3));
    cudnnSetFilter4dDescriptor(d.older->w, type, 1, size(names.w, 0), size(names.w, 1), size(names.w, 2), size(names.w, 3));
    cudnnSetTensor4dDescriptor(d.older->y, 1, type, size(names.y, 0), size(names.y, 1), size(names.y, 2), size(names.y, 3));
    cudnnSetConvolution2dDescriptor(d.older->convolution, c.number(105, 0), c.number(105, 1), c.number(103, 0), c.number(103, 1), 1, 1, 1, 0);
    cudnnSetConvolutionMathType(d.older->convolution, engine(engine_of(d).number(1301))->algorithm == ROUNDED ? 0 : FMA);
    return 0;
}
API cudnnBackendFinalize(void *descriptor) {
    if (!descriptor) return BAD_NULL;
    Descriptor &d = **shared(descriptor);
    if (d.finalized) return BAD;
    for (const Rule &rule : RULES.at(d.type))
        if (rule.needed && !d.values.count(rule.attribute)) return BAD;
    int status = 0;
    if (const Operation *names = operation(d.type)) status = checked(d, *names);
    else if (d.type == TENSOR) status = tensor(d);
    else if (d.type == CONVOLUTION) status = convolution(d);
    else if (d.type == GRAPH) status = graph(d);
    else if (d.type == HEURISTICS) status = is(d.part(201), GRAPH) ? 0 : WRONG_DESCRIPTOR;
    else if (d.type == ENGINE) status = !is(d.part(1300), GRAPH) ? WRONG_DESCRIPTOR : engine(d.number(1301)) ? 0 : NOT_SUPPORTED;
    else if (d.type == CONFIG) status = config(d);
    else if (d.type == PLAN) status = plan(d);
    else if (d.type == PACK) status = d.values[1000].numbers.size() == d.values[1001].numbers.size() ? 0 : BAD;
    d.finalized = status == 0;
    return status;
}

// What the heuristics offer for a graph: engines, with the value of the knob of the one that has one.
static std::vector<std::pair<long, int>> offers(const Descriptor &d) {
    const Descriptor &g = *d.part(201), &o = *g.part(801);
    const Operation &names = *operation(o.type);
    const Descriptor &x = *o.part(names.x), &w = *o.part(names.w);
    long type = x.number(901), pack = type == 0 ? 4 : 8, mode = d.values.count(200) ? d.number(200) : 0;
    // Sixteen bytes of channels, or no engine is deterministic.
    if (w.number(902, 0) % pack || w.number(902, 1) % pack) return {{UNSAFE, 0}};
    if (mode == 2) return {{UNSAFE, 0}, {FALLBACK, 0}};
    static std::mutex lock;
    static std::map<std::vector<long>, unsigned> searches;
    std::lock_guard<std::mutex> guard(lock);
    std::vector<long> which = {o.type, type};
    for (int i = 0; i < 4; ++i) which.insert(which.end(), {x.number(902, i), w.number(902, i)});
    which.push_back(o.part(names.convolution)->number(103));
    int order = searches[which]++ % 2;
    std::vector<std::pair<long, int>> all = {{UNSAFE, 0}, {5, 0}, {10, 0}, {11, 0}, {12, 0}, {13, 0}};
    if (type == 0) all.push_back({ROUNDING, 0});
    all.push_back({KNOBBED, order});
    return all;
}
static Shared made(int type, std::map<int, Value> values) {
    Shared d = std::make_shared<Descriptor>(type);
    d->values = std::move(values);
    d->finalized = true;
    return d;
}
// Fills descriptors of the caller's with `parts`. Without any it says how many there are, or `more`: cuDNN promises no
// more than that.
static int fill(const std::vector<Shared> &parts, int type, int64_t asked, int64_t *count, void *elements, int64_t more = 0) {
    if (!asked) {
        if (count) *count = parts.size() + more;
        return 0;
    }
    int64_t n = std::min<int64_t>(asked, parts.size());
    for (int64_t i = 0; i < n; ++i) {
        void *to = ((void **)elements)[i];
        if (!to) return BAD_NULL;
        if ((*shared(to))->type != type) return WRONG_DESCRIPTOR;
        (*shared(to))->values = parts[i]->values;
        (*shared(to))->finalized = true;
    }
    if (count) *count = n;
    return 0;
}
static int numbers(const std::vector<uint64_t> &all, int type, int64_t asked, int64_t *count, void *elements) {
    if (count) *count = all.size();
    for (int64_t i = 0; i < std::min<int64_t>(asked, all.size()); ++i) memcpy((char *)elements + i * bytes(type), &all[i], bytes(type));
    return 0;
}
API cudnnBackendGetAttribute(void *descriptor, int attribute, int type, int64_t asked, int64_t *count, void *elements) {
    if (!descriptor || (asked && !elements)) return BAD_NULL;
    Descriptor &d = **shared(descriptor);
    if (!d.finalized) return NOT_INITIALIZED;
    auto typed = [&](int expected) { return type == expected ? 0 : WRONG_TYPE; };
    if (d.type == HEURISTICS && attribute == 202) {
        if (int e = typed(DESCRIPTOR)) return e;
        std::vector<Shared> configs;
        // Only a list that is taken counts as a search.
        if (asked)
            for (auto [index, order] : offers(d)) {
                Shared choice = made(KNOB_CHOICE, {{600, {{ORDER}, {}}}, {601, {{(uint64_t)order}, {}}}});
                Shared of = made(ENGINE, {{1300, {{}, {d.part(201)}}}, {1301, {{(uint64_t)index}, {}}}});
                std::vector<Shared> choices = index == KNOBBED ? std::vector<Shared>{choice} : std::vector<Shared>{};
                configs.push_back(made(CONFIG, {{300, {{}, {of}}}, {302, {{}, choices}}}));
            }
        return fill(configs, CONFIG, asked, count, elements, 12);
    }
    if (d.type == CONFIG && attribute == 300) return type == DESCRIPTOR ? fill({d.part(300)}, ENGINE, asked, count, elements) : WRONG_TYPE;
    if (d.type == CONFIG && attribute == 302)
        return type == DESCRIPTOR ? fill(d.values.count(302) ? d.values[302].descriptors : std::vector<Shared>{}, KNOB_CHOICE, asked, count, elements) : WRONG_TYPE;
    if (d.type == ENGINE && attribute == 1303) {
        const Engine &e = *engine(d.number(1301));
        const Descriptor &o = *d.part(1300)->part(801);
        bool f32 = o.part(operation(o.type)->x)->number(901) == 0;
        return type == NOTE ? numbers(f32 ? e.notes32 : e.notes16, type, asked, count, elements) : WRONG_TYPE;
    }
    if (d.type == ENGINE && attribute == 1305)
        return type == BEHAVIOR ? numbers(engine(d.number(1301))->behaviors, type, asked, count, elements) : WRONG_TYPE;
    if (d.type == PLAN && attribute == 402)
        return type == INT64 ? numbers({engine(engine_of(d).number(1301))->workspace}, type, asked, count, elements) : WRONG_TYPE;
    if (d.type == GRAPH && attribute == 802) return type == INT64 ? numbers({(uint64_t)ENGINES}, type, asked, count, elements) : WRONG_TYPE;
    // What was set can be read.
    for (const Rule &rule : RULES.at(d.type))
        if (rule.attribute == attribute && rule.type != DESCRIPTOR && d.values.count(attribute))
            return type == rule.type ? numbers(d.values[attribute].numbers, type, asked, count, elements) : WRONG_TYPE;
    return BAD;
}

API cudnnBackendExecute(void *handle, void *plan, void *pack) {
    if (!handle || !plan || !pack) return BAD_NULL;
    const Descriptor &p = **shared(plan), &v = **shared(pack);
    if (p.type != PLAN || v.type != PACK) return WRONG_DESCRIPTOR;
    if (!p.finalized || !v.finalized) return NOT_FINALIZED;
    const Engine &e = *engine(engine_of(p).number(1301));
    if (e.is == Engine::NEVER) {
        fprintf(stderr, "emulated cuDNN: engine %ld was run, which is not deterministic, rounds its factors, is compiled or has too little memory\n", e.index);
        abort();
    }
    if (e.is == Engine::NO_RUN) return NOT_SUPPORTED;
    const Descriptor &o = operation_of(p);
    const Operation &names = *operation(o.type);
    std::array<void *, 3> data{};
    const std::vector<uint64_t> &ids = v.values.at(1000).numbers, &pointers = v.values.at(1001).numbers;
    int at = 0;
    for (int which : {names.x, names.w, names.y}) {
        const Descriptor &t = *o.part(which);
        auto found = std::find(ids.begin(), ids.end(), (uint64_t)t.number(906));
        if (found == ids.end()) return BAD;
        uint64_t pointer = pointers[found - ids.begin()];
        if (!pointer || pointer % t.number(900)) return MISALIGNED;
        data[at++] = (void *)pointer;
    }
    auto [x, w, y] = data;
    static char none[WORK];
    void *work = e.workspace ? v.values.count(1003) ? (void *)v.number(1003) : nullptr : none;
    int algorithm = e.algorithm;
    const std::map<int, Value> &set = p.part(401)->values;
    if (set.count(302))
        for (const Shared &choice : set.at(302).descriptors) algorithm = choice->number(601) ? BACKWARDS : GOOD;
    float alpha = o.factor(names.alpha, 1), beta = o.factor(names.beta, 0);
    // The older API says 2 milliseconds.
    emulated_took((o.part(names.w)->number(902, 2) == 1 ? e.small : e.large) - 2);
    Older &d = *p.older;
    if (o.type == FORWARD) return cudnnConvolutionForward(handle, &alpha, d.x, x, d.w, w, d.convolution, algorithm, work, WORK, &beta, d.y, y);
    if (o.type == INPUT) return cudnnConvolutionBackwardData(handle, &alpha, d.w, w, d.y, y, d.convolution, algorithm, work, WORK, &beta, d.x, x);
    return cudnnConvolutionBackwardFilter(handle, &alpha, d.x, x, d.y, y, d.convolution, algorithm, work, WORK, &beta, d.w, w);
}
