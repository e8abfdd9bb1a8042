//! The instructions for bf16 give the bits of the portable version.

use super::portable::Lanes8;
use super::{Kernel, Vector};
use half::bf16;
use invaspread_random::{Purpose, Stream};

const LEN: usize = 16;

/// Rounds two vectors, pairs them, and adds the products of the pairs to a third.
struct Halves<'a> {
    first: &'a [f32; LEN],
    second: &'a [f32; LEN],
    factors: &'a [f32; LEN],
    sum: &'a [f32; LEN],
    rounded: &'a mut [bf16; LEN],
    read: &'a mut [f32; LEN],
    dots: &'a mut [f32; LEN],
}

impl Kernel for Halves<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        for at in (0..LEN).step_by(V::LANES) {
            // SAFETY: at + LANES <= LEN.
            unsafe {
                let load = |values: &[f32; LEN]| V::load(values.as_ptr().add(at));
                let (first, second, factors) = (load(self.first), load(self.second), load(self.factors));
                first.store_bf16(self.rounded.as_mut_ptr().add(at));
                V::load_bf16(self.rounded.as_ptr().add(at)).store(self.read.as_mut_ptr().add(at));
                let (a, b) = (V::pair(first, second), V::pair(factors, first));
                load(self.sum).dot_pairs(a, b).store(self.dots.as_mut_ptr().add(at));
            }
        }
    }
}

/// The bits of all results: rounded numbers, the same read back, and sums. Which NaN a sum is does not
/// matter.
fn bits(
    run: impl FnOnce(Halves<'_>),
    [first, second, factors, sum]: &[[f32; LEN]; 4],
) -> ([u16; LEN], [u32; LEN], [u32; LEN]) {
    let (mut rounded, mut read, mut dots) = ([bf16::ZERO; LEN], [0.0; LEN], [0.0; LEN]);
    run(Halves { first, second, factors, sum, rounded: &mut rounded, read: &mut read, dots: &mut dots });
    let sums = dots.map(|x| if x.is_nan() { f32::NAN.to_bits() } else { x.to_bits() });
    (rounded.map(bf16::to_bits), read.map(f32::to_bits), sums)
}

/// Draws numbers of all sizes, NaN, infinities, zeros, numbers half way between two of bf16, and the largest
/// number, which rounds to infinity. Numbers below the smallest normal one are left out: see
/// [`Vector::dot_pairs`].
fn draw(stream: &mut Stream) -> [f32; LEN] {
    std::array::from_fn(|_| match stream.below(12) {
        0 => f32::from_bits(0x7f80_0001),
        1 => f32::NAN,
        2 => f32::INFINITY,
        3 => -0.0,
        4 => -f32::MAX,
        5 => f32::from_bits(0x3f80_8000),
        6 => f32::from_bits(0x3f81_8000),
        _ => (stream.normal() * 2f64.powi(stream.below(40) as i32 - 20)) as f32,
    })
}

#[test]
fn every_instruction_set_rounds_and_multiplies_alike() {
    let mut stream = Stream::new(1, Purpose::Bootstrap, 0, 0);
    let inputs: Vec<[[f32; LEN]; 4]> =
        (0..2000).map(|_| std::array::from_fn(|_| draw(&mut stream))).collect();
    for input in &inputs {
        let (rounded, read, _) = bits(|k| k.run::<Lanes8>(), input);
        for ((x, rounded), read) in input[0].iter().zip(rounded).zip(read) {
            assert_eq!(rounded, bf16::from_f32(*x).to_bits(), "{x}");
            assert_eq!(read, u32::from(rounded) << 16);
        }
    }
    #[cfg(target_arch = "x86_64")]
    {
        use super::x86::{run_avx2, run_avx512, run_avx512_bf16};
        // Sums of the portable version are not fused, but a product of two bf16 is exact in f32.
        let check = |name: &str, has: bool, run: &dyn Fn(Halves<'_>)| {
            if !has {
                println!("skipped: this processor has no {name}");
                return;
            }
            for input in &inputs {
                assert_eq!(bits(run, input), bits(|k| k.run::<Lanes8>(), input), "{name}: {input:?}");
            }
        };
        let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        // SAFETY: each is called only where the processor has its instructions.
        unsafe {
            check("AVX2", avx2, &|k| run_avx2(k));
            let avx512 = avx2 && is_x86_feature_detected!("avx512f");
            check("AVX-512", avx512, &|k| run_avx512(k));
            let halves = is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512bf16");
            check("AVX512-BF16", avx512 && halves, &|k| run_avx512_bf16(k));
        }
    }
}
