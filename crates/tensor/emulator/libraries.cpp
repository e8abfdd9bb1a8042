// cuBLAS, cuRAND and cuDNN on the CPU: the calls that cudarc, candle and this crate make, as loops that read
// like their definitions. It is one library under four names. cuDNN's search first offers an algorithm that
// is not deterministic, one that needs too much memory and, in f32, one that rounds to TF32; it is an error to
// take one of the first two. Then come two that round differently, in an order that changes with each search for
// one convolution, as timing may change it.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <vector>
#include "cuda_on_host.hpp"
#define API extern "C" __attribute__((visibility("default"))) int
// The driver counts the calls that launch something, and takes up their work where the stream is captured.
extern "C" void emulated_library_call();
extern "C" void emulated_took(double milliseconds);
extern "C" bool emulated_recorded(std::function<void()> *work);
extern "C" int emulated_not_while_recording(const char *what);
// Runs the work of a call now, or when the graph that it is recorded for is launched.
static int launched(std::function<void()> work) {
    if (emulated_recorded(&work)) return 0;
    emulated_library_call();
    work();
    return 0;
}
static float bf(uint16_t b) { return __bfloat162float({b}); }
// cuBLAS
API cublasCreate_v2(void **h) { *h = malloc(8); return 0; }
API cublasDestroy_v2(void *h) { free(h); return 0; }
API cublasSetStream_v2(void *, void *) { return 0; }
API cublasSetMathMode(void *, int) { return 0; }
API cublasGetMathMode(void *, int *m) { *m = 0; return 0; }
API cublasSetWorkspace_v2(void *, void *, size_t) { return 0; }
// cudaDataType: 0 f32, 1 f64, 14 bf16.
static double at(const void *p, int t, size_t i) {
    return t == 0 ? ((const float *)p)[i] : t == 1 ? ((const double *)p)[i] : t == 14 ? bf(((const uint16_t *)p)[i]) : NAN;
}
static void put(void *p, int t, size_t i, double x) {
    if (t == 0) ((float *)p)[i] = x;
    else if (t == 1) ((double *)p)[i] = x;
    else if (t == 14) ((uint16_t *)p)[i] = __float2bfloat16(x).bits;
}
static double scalar(const void *p, int compute) { return compute == 70 ? *(const double *)p : *(const float *)p; }
static int gemm(int ta, int tb, int m, int n, int k, double alpha, const void *a, int at_, int lda, const void *b, int bt, int ldb, double beta,
                void *c, int ct, int ldc) {
    for (int j = 0; j < n; ++j)
        for (int i = 0; i < m; ++i) {
            double sum = 0;
            for (int l = 0; l < k; ++l)
                sum += at(a, at_, ta ? (size_t)i * lda + l : (size_t)l * lda + i) * at(b, bt, tb ? (size_t)l * ldb + j : (size_t)j * ldb + l);
            size_t o = (size_t)j * ldc + i;
            put(c, ct, o, alpha * sum + (beta ? beta * at(c, ct, o) : 0));
        }
    return 0;
}
API cublasGemmEx(void *, int ta, int tb, int m, int n, int k, const void *al, const void *a, int at_, int lda, const void *b, int bt, int ldb,
                 const void *be, void *c, int ct, int ldc, int compute, int) {
    double alpha = scalar(al, compute), beta = scalar(be, compute);
    return launched([=] { gemm(ta, tb, m, n, k, alpha, a, at_, lda, b, bt, ldb, beta, c, ct, ldc); });
}
API cublasGemmStridedBatchedEx(void *, int ta, int tb, int m, int n, int k, const void *al, const void *a, int at_, int lda, long long sa,
                               const void *b, int bt, int ldb, long long sb, const void *be, void *c, int ct, int ldc, long long sc, int count,
                               int compute, int) {
    auto size = [](int t) { return t == 0 ? 4 : t == 1 ? 8 : 2; };
    double alpha = scalar(al, compute), beta = scalar(be, compute);
    return launched([=] {
        for (int i = 0; i < count; ++i)
            gemm(ta, tb, m, n, k, alpha, (char *)a + i * sa * size(at_), at_, lda, (char *)b + i * sb * size(bt), bt, ldb, beta,
                 (char *)c + i * sc * size(ct), ct, ldc);
    });
}
API cublasSgemmStridedBatched(void *h, int ta, int tb, int m, int n, int k, const float *al, const float *a, int lda, long long sa,
                              const float *b, int ldb, long long sb, const float *be, float *c, int ldc, long long sc, int count) {
    return cublasGemmStridedBatchedEx(h, ta, tb, m, n, k, al, a, 0, lda, sa, b, 0, ldb, sb, be, c, 0, ldc, sc, count, 68, 0);
}
// cuRAND
API curandCreateGenerator(void **g, int) { *g = malloc(8); return 0; }
API curandSetPseudoRandomGeneratorSeed(void *, unsigned long long) { return 0; }
API curandSetGeneratorOffset(void *, unsigned long long) { return 0; }
API curandSetStream(void *, void *) { return 0; }
API curandDestroyGenerator(void *g) { free(g); return 0; }
// cuDNN
struct Tensor { int type, n, c, h, w, format; };
struct Conv { int ph, pw, sh, sw, math; };
API cudnnCreate(void **h) { *h = malloc(8); return 0; }
API cudnnDestroy(void *h) { free(h); return 0; }
API cudnnSetStream(void *, void *) { return 0; }
extern "C" size_t cudnnGetVersion() { return 91900; }
extern "C" const char *cudnnGetErrorString(int) { return "emulated"; }
API cudnnCreateTensorDescriptor(Tensor **d) { *d = new Tensor(); return 0; }
API cudnnDestroyTensorDescriptor(Tensor *d) { delete d; return 0; }
API cudnnCreateFilterDescriptor(Tensor **d) { *d = new Tensor(); return 0; }
API cudnnDestroyFilterDescriptor(Tensor *d) { delete d; return 0; }
API cudnnCreateConvolutionDescriptor(Conv **d) { *d = new Conv(); return 0; }
API cudnnDestroyConvolutionDescriptor(Conv *d) { delete d; return 0; }
API cudnnSetTensor4dDescriptor(Tensor *d, int format, int type, int n, int c, int h, int w) { *d = {type, n, c, h, w, format}; return 0; }
API cudnnSetFilter4dDescriptor(Tensor *d, int type, int format, int k, int c, int h, int w) { *d = {type, k, c, h, w, format}; return 0; }
// Accepts only cross-correlation with sums in f32.
API cudnnSetConvolution2dDescriptor(Conv *d, int ph, int pw, int sh, int sw, int, int, int mode, int type) {
    *d = {ph, pw, sh, sw, 0};
    return mode == 1 && type == 0 ? 0 : 3000;
}
API cudnnSetConvolutionMathType(Conv *d, int m) { d->math = m; return 0; }
// Supports only NHWC.
static size_t index(const Tensor &t, int n, int c, int y, int x) { return (((size_t)n * t.h + y) * t.w + x) * t.c + c; }
static int kind(const Tensor &t) { return t.type == 0 ? 0 : t.type == 1 ? 1 : 14; }
struct Perf { int algo, status; float time; size_t memory; int determinism, math, reserved[3]; };
static const size_t WORK = 1000;
static const int FMA = 3;
// Two good algorithms; the second sums from the last term to the first. The third rounds to TF32.
static const int GOOD = 1, BACKWARDS = 4, TF32 = 3;
static int found(int direction, int asked, int *count, Perf *p, const Conv *c, const Tensor &x, const Tensor &w, const Tensor &y) {
    if (int error = emulated_not_while_recording("cuDNN measures its algorithms")) return error;
    // Sixteen bytes of channels, or none of the algorithms is deterministic.
    int pack = x.type == 0 ? 4 : 8;
    bool aligned = x.c % pack == 0 && y.c % pack == 0;
    static std::map<std::vector<int>, unsigned> searches;
    unsigned &before = searches[{direction, x.type, x.n, x.c, x.h, x.w, w.n, w.h, w.w, c->ph, c->sh}];
    int order[2] = {GOOD, BACKWARDS};
    if (before++ % 2) std::swap(order[0], order[1]);
    std::vector<Perf> all = {{0, 0, 1, 10, 0, c->math, {}}};
    if (aligned) {
        all.push_back({GOOD, 0, 2, size_t(1) << 40, 1, c->math, {}});
        if (x.type == 0) all.push_back({TF32, 0, 3, WORK, 1, 0, {}});
        for (int algorithm : order) all.push_back({algorithm, 0, 4, WORK, 1, c->math, {}});
    }
    *count = std::min(asked, (int)all.size());
    memcpy(p, all.data(), *count * sizeof(Perf));
    return 0;
}
static bool fits(const Tensor *x, const Tensor *w, const Tensor *y, const Conv *c) {
    return x->format == 1 && w->format == 1 && y->format == 1 && x->c == w->c && y->c == w->n && x->n == y->n &&
           y->h == (x->h + 2 * c->ph - w->h) / c->sh + 1 && y->w == (x->w + 2 * c->pw - w->w) / c->sw + 1;
}
// Calls f with the places of both factors and of the sum, for all terms, forwards or backwards.
template <typename F> static void each(const Tensor *x, const Tensor *w, const Tensor *y, const Conv *c, bool backwards, F f) {
    long terms = (long)y->n * y->h * y->w * w->h * w->w;
    for (long i = 0; i < terms; ++i) {
        long term = backwards ? terms - 1 - i : i;
        int tap = term % (w->h * w->w), pixel = term / (w->h * w->w) % (y->h * y->w), n = term / (w->h * w->w) / (y->h * y->w);
        int oy = pixel / y->w, ox = pixel % y->w, ky = tap / w->w, kx = tap % w->w;
        int iy = oy * c->sh + ky - c->ph, ix = ox * c->sw + kx - c->pw;
        if (iy < 0 || ix < 0 || iy >= x->h || ix >= x->w) continue;
        size_t from = index(*x, n, 0, iy, ix), to = index(*y, n, 0, oy, ox), taps = (size_t)w->h * w->w, channels = x->c;
        for (int o = 0; o < y->c; ++o) {
            size_t weight = (o * taps + tap) * channels;
            if (backwards)
                for (size_t i = channels; i-- > 0;) f(from + i, weight + i, to + o);
            else
                for (size_t i = 0; i < channels; ++i) f(from + i, weight + i, to + o);
        }
    }
}
static void write(void *to, const Tensor &t, const std::vector<float> &sums, float beta = 0) {
    for (size_t i = 0; i < sums.size(); ++i) put(to, kind(t), i, sums[i] + (beta ? beta * at(to, kind(t), i) : 0));
}
static size_t count(const Tensor &t) { return (size_t)t.n * t.c * t.h * t.w; }
static int check(size_t size, bool right, void *work) {
    emulated_took(2);
    if (!right || size < WORK || !work) {
        fprintf(stderr, "emulated cuDNN: wrong algorithm or workspace\n");
        return 2000;
    }
    return 0;
}
// Factors in f32, rounded to the ten bits of TF32 where the algorithm does so.
static std::vector<float> factors(const void *p, const Tensor &t, bool tf32) {
    std::vector<float> all(count(t));
    for (size_t i = 0; i < all.size(); ++i) {
        float x = at(p, kind(t), i);
        if (tf32 && x - x == 0) {
            uint32_t bits;
            memcpy(&bits, &x, 4);
            bits = (bits + 0x0fff + (bits >> 13 & 1)) & ~0x1fffu;
            memcpy(&x, &bits, 4);
        }
        all[i] = x;
    }
    return all;
}
// One direction. `first` and `second` are the factors, and `term` adds a product of them at the places that `each` gives.
template <typename F>
static int convolve(const Tensor *x, const Tensor *w, const Tensor *y, const Conv *c, int algorithm, void *work, size_t size, const float *alpha,
                    const float *beta, const Tensor *to, void *result, const Tensor *first, const void *a, const Tensor *second, const void *b,
                    F term) {
    if (!fits(x, w, y, c)) return 3000;
    bool known = algorithm == GOOD || algorithm == BACKWARDS || (algorithm == TF32 && x->type == 0 && c->math != FMA);
    if (int e = check(size, known && *alpha == 1, work)) return e;
    // Descriptors and factors are read now, what lies on the device when the work is done.
    return launched([=, x = *x, w = *w, y = *y, c = *c, beta = *beta, to = *to, first = *first, second = *second] {
        memset(work, 0x77, WORK);
        std::vector<float> sums(count(to)), one = factors(a, first, algorithm == TF32), other = factors(b, second, algorithm == TF32);
        float *s = sums.data();
        const float *f = one.data(), *g = other.data();
        each(&x, &w, &y, &c, algorithm == BACKWARDS, [=](size_t i, size_t j, size_t o) { term(s, f, g, i, j, o); });
        write(result, to, sums, beta);
    });
}
API cudnnConvolutionForward(void *, const float *alpha, const Tensor *xd, const void *x, const Tensor *wd, const void *w,
                            const Conv *c, int algo, void *work, size_t size, const float *beta, const Tensor *yd, void *y) {
    return convolve(xd, wd, yd, c, algo, work, size, alpha, beta, yd, y, xd, x, wd, w,
                    [](float *s, const float *x, const float *w, size_t i, size_t j, size_t o) { s[o] += x[i] * w[j]; });
}
API cudnnConvolutionBackwardData(void *, const float *alpha, const Tensor *wd, const void *w, const Tensor *yd, const void *gy,
                                 const Conv *c, int algo, void *work, size_t size, const float *beta, const Tensor *xd, void *gx) {
    return convolve(xd, wd, yd, c, algo, work, size, alpha, beta, xd, gx, yd, gy, wd, w,
                    [](float *s, const float *gy, const float *w, size_t i, size_t j, size_t o) { s[i] += gy[o] * w[j]; });
}
API cudnnConvolutionBackwardFilter(void *, const float *alpha, const Tensor *xd, const void *x, const Tensor *yd, const void *gy,
                                   const Conv *c, int algo, void *work, size_t size, const float *beta, const Tensor *wd, void *gw) {
    return convolve(xd, wd, yd, c, algo, work, size, alpha, beta, wd, gw, yd, gy, xd, x,
                    [](float *s, const float *gy, const float *x, size_t i, size_t j, size_t o) { s[j] += gy[o] * x[i]; });
}
// The search overwrites its output, as the real one does.
API cudnnFindConvolutionForwardAlgorithmEx(void *, const Tensor *x, const void *, const Tensor *w, const void *, const Conv *c, const Tensor *y,
                                           void *output, int asked, int *returned, Perf *results, void *, size_t) {
    write(output, *y, std::vector<float>(count(*y), 7));
    return found(0, asked, returned, results, c, *x, *w, *y);
}
API cudnnFindConvolutionBackwardDataAlgorithmEx(void *, const Tensor *w, const void *, const Tensor *y, const void *, const Conv *c,
                                                const Tensor *x, void *output, int asked, int *returned, Perf *results, void *, size_t) {
    write(output, *x, std::vector<float>(count(*x), 7));
    return found(1, asked, returned, results, c, *x, *w, *y);
}
API cudnnFindConvolutionBackwardFilterAlgorithmEx(void *, const Tensor *x, const void *, const Tensor *y, const void *, const Conv *c,
                                                  const Tensor *w, void *output, int asked, int *returned, Perf *results, void *, size_t) {
    write(output, *w, std::vector<float>(count(*w), 7));
    return found(2, asked, returned, results, c, *x, *w, *y);
}
