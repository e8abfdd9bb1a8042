// cuBLAS, cuRAND and cuDNN on the CPU: the calls that cudarc, candle and this crate make, as loops that read
// like their definitions. It is one library under four names. cuDNN's search first offers an algorithm that
// is not deterministic, and one that needs too much memory; it is an error to take either.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>
#include "cuda_on_host.hpp"
#define API extern "C" __attribute__((visibility("default"))) int
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
    return gemm(ta, tb, m, n, k, scalar(al, compute), a, at_, lda, b, bt, ldb, scalar(be, compute), c, ct, ldc);
}
API cublasGemmStridedBatchedEx(void *, int ta, int tb, int m, int n, int k, const void *al, const void *a, int at_, int lda, long long sa,
                               const void *b, int bt, int ldb, long long sb, const void *be, void *c, int ct, int ldc, long long sc, int count,
                               int compute, int) {
    auto size = [](int t) { return t == 0 ? 4 : t == 1 ? 8 : 2; };
    for (int i = 0; i < count; ++i)
        gemm(ta, tb, m, n, k, scalar(al, compute), (char *)a + i * sa * size(at_), at_, lda, (char *)b + i * sb * size(bt), bt, ldb,
             scalar(be, compute), (char *)c + i * sc * size(ct), ct, ldc);
    return 0;
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
static int found(int asked, int *count, Perf *p, const Conv *c) {
    // The fastest is not deterministic and the second needs too much memory: the third must be taken.
    Perf all[3] = {{0, 0, 1, 10, 0, c->math, {}}, {1, 0, 2, size_t(1) << 40, 1, c->math, {}}, {1, 0, 3, WORK, 1, c->math, {}}};
    *count = asked < 3 ? asked : 3;
    memcpy(p, all, *count * sizeof(Perf));
    return 0;
}
static bool fits(const Tensor *x, const Tensor *w, const Tensor *y, const Conv *c) {
    return x->format == 1 && w->format == 1 && y->format == 1 && x->c == w->c && y->c == w->n && x->n == y->n &&
           y->h == (x->h + 2 * c->ph - w->h) / c->sh + 1 && y->w == (x->w + 2 * c->pw - w->w) / c->sw + 1;
}
template <typename F> static void each(const Tensor *x, const Tensor *w, const Tensor *y, const Conv *c, F f) {
    for (int n = 0; n < y->n; ++n)
        for (int pixel = 0; pixel < y->h * y->w; ++pixel)
            for (int tap = 0; tap < w->h * w->w; ++tap) {
                int oy = pixel / y->w, ox = pixel % y->w, ky = tap / w->w, kx = tap % w->w;
                int iy = oy * c->sh + ky - c->ph, ix = ox * c->sw + kx - c->pw;
                if (iy < 0 || ix < 0 || iy >= x->h || ix >= x->w) continue;
                for (int o = 0; o < y->c; ++o)
                    for (int i = 0; i < x->c; ++i) f(index(*x, n, i, iy, ix), index(*w, o, i, ky, kx), index(*y, n, o, oy, ox));
            }
}
static void write(void *to, const Tensor &t, const std::vector<float> &sums) { for (size_t i = 0; i < sums.size(); ++i) put(to, kind(t), i, sums[i]); }
static size_t count(const Tensor &t) { return (size_t)t.n * t.c * t.h * t.w; }
static int check(size_t size, bool right, void *work) {
    if (!right || size < WORK || !work) {
        fprintf(stderr, "emulated cuDNN: wrong algorithm or workspace\n");
        return 2000;
    }
    memset(work, 0x77, WORK);
    return 0;
}
API cudnnConvolutionForward(void *, const float *, const Tensor *xd, const void *x, const Tensor *wd, const void *w,
                            const Conv *c, int algo, void *work, size_t size, const float *, const Tensor *yd, void *y) {
    if (!fits(xd, wd, yd, c)) return 3000;
    if (int e = check(size, algo == 1, work)) return e;
    std::vector<float> s(count(*yd));
    each(xd, wd, yd, c, [&](size_t i, size_t j, size_t o) { s[o] += at(x, kind(*xd), i) * at(w, kind(*wd), j); });
    write(y, *yd, s);
    return 0;
}
API cudnnConvolutionBackwardData(void *, const float *, const Tensor *wd, const void *w, const Tensor *yd, const void *gy,
                                 const Conv *c, int algo, void *work, size_t size, const float *, const Tensor *xd, void *gx) {
    if (!fits(xd, wd, yd, c)) return 3000;
    if (int e = check(size, algo == 1, work)) return e;
    std::vector<float> s(count(*xd));
    each(xd, wd, yd, c, [&](size_t i, size_t j, size_t o) { s[i] += at(gy, kind(*yd), o) * at(w, kind(*wd), j); });
    write(gx, *xd, s);
    return 0;
}
API cudnnConvolutionBackwardFilter(void *, const float *, const Tensor *xd, const void *x, const Tensor *yd, const void *gy,
                                   const Conv *c, int algo, void *work, size_t size, const float *, const Tensor *wd, void *gw) {
    if (!fits(xd, wd, yd, c)) return 3000;
    if (int e = check(size, algo == 1, work)) return e;
    std::vector<float> s(count(*wd));
    each(xd, wd, yd, c, [&](size_t i, size_t j, size_t o) { s[j] += at(gy, kind(*yd), o) * at(x, kind(*xd), i); });
    write(gw, *wd, s);
    return 0;
}
// The search overwrites its output, as the real one does.
static int search(const Conv *c, const Tensor *to, void *output, int asked, int *returned, Perf *results) {
    write(output, *to, std::vector<float>(count(*to), 7));
    return found(asked, returned, results, c);
}
API cudnnFindConvolutionForwardAlgorithmEx(void *, const Tensor *, const void *, const Tensor *, const void *, const Conv *c, const Tensor *to,
                                           void *output, int asked, int *returned, Perf *results, void *, size_t) {
    return search(c, to, output, asked, returned, results);
}
API cudnnFindConvolutionBackwardDataAlgorithmEx(void *, const Tensor *, const void *, const Tensor *, const void *, const Conv *c,
                                                const Tensor *to, void *output, int asked, int *returned, Perf *results, void *, size_t) {
    return search(c, to, output, asked, returned, results);
}
API cudnnFindConvolutionBackwardFilterAlgorithmEx(void *, const Tensor *, const void *, const Tensor *, const void *, const Conv *c,
                                                  const Tensor *to, void *output, int asked, int *returned, Perf *results, void *, size_t) {
    return search(c, to, output, asked, returned, results);
}
