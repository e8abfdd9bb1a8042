//! Newton's method for smooth convex functions that can multiply a vector by their Hessian.
//!
//! Each step solves `H p = -g` by preconditioned conjugate gradients, up to a residual that decreases with
//! the gradient (Dembo, Eisenstat and Steihaug 1982: convergence is nearly quadratic). Then `x⁺ = x + t p`,
//! where t is halved until the function decreases by a certain share of the decrease that the slope predicts.
//!
//! Shapes: x, g and p (p). Everything is computed in f64 on the calling thread, in a fixed order; only the
//! problem may use other threads.

/// The share of the predicted decrease that a step must reach.
const DECREASE: f64 = 1e-4;
/// Values whose relative difference is at most this count as equal, since near the minimum a decrease is
/// smaller than the rounding errors.
const ROUNDING: f64 = 1e-14;
/// The largest number of halvings of a step.
const HALVINGS: usize = 50;
/// The largest number of products with the Hessian for a step.
const PRODUCTS: usize = 1000;
/// The residual of a step as a share of the gradient: the first value and the smallest one. A gradient that
/// consists mostly of rounding errors does not allow a smaller one.
const RESIDUAL: [f64; 2] = [0.1, 1e-4];

/// A function to be minimized.
pub(crate) trait Problem {
    /// The numbers from which the Hessian at a point is computed.
    type Curvature;
    /// Returns the value at `x` (p); writes the gradient (p).
    fn value(&self, x: &[f64], gradient: &mut [f64]) -> f64;
    /// Computes the numbers that the methods below need for the Hessian at `x`.
    fn curvature(&self, x: &[f64]) -> Self::Curvature;
    /// Writes `H vector` to `product`.
    fn hessian_times(&self, at: &Self::Curvature, vector: &[f64], product: &mut [f64]);
    /// Multiplies `vector` by a symmetric positive definite matrix near the inverse Hessian.
    fn precondition(&self, at: &Self::Curvature, vector: &mut [f64]);
    /// Returns the distance of `x + step` from `x`, in the unit of the tolerance.
    fn distance(&self, x: &[f64], step: &[f64]) -> f64;
}

/// The settings of the method.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Newton {
    /// The iteration ends after a whole step of at most this length, by [`Problem::distance`].
    pub(crate) tolerance: f64,
    /// The largest number of steps.
    pub(crate) max_iterations: usize,
}

/// The result of a minimization.
#[derive(Debug)]
pub(crate) struct Minimum {
    /// (p) the last point.
    pub(crate) at: Vec<f64>,
    /// The length of the last whole step; NaN or infinite if there was none.
    pub(crate) distance: f64,
    /// The number of steps taken.
    pub(crate) iterations: usize,
}

impl Newton {
    /// Minimizes `problem` from `start` (p).
    ///
    /// Ends early if no step lowers the function any more. The caller must compare `distance` with its
    /// tolerance.
    pub(crate) fn minimize(&self, problem: &impl Problem, start: Vec<f64>) -> Minimum {
        let mut at = start;
        let mut gradient = vec![0.0; at.len()];
        let mut value = problem.value(&at, &mut gradient);
        let first = norm(&gradient);
        let (mut next, mut next_gradient) = (at.clone(), gradient.clone());
        let mut distance = f64::INFINITY;
        let mut iterations = 0;
        while iterations < self.max_iterations {
            let length = norm(&gradient);
            if length == 0.0 {
                distance = 0.0;
                break;
            }
            if !length.is_finite() {
                distance = f64::NAN;
                break;
            }
            let residual = RESIDUAL[0].min(length / first).max(RESIDUAL[1]);
            let step = newton_step(problem, &problem.curvature(&at), &gradient, residual * length);
            distance = problem.distance(&at, &step);
            let slope = dot(&step, &gradient);
            let mut share = 1.0;
            let mut taken = false;
            for _ in 0..HALVINGS {
                next.iter_mut().zip(at.iter().zip(&step)).for_each(|(n, (a, s))| *n = a + share * s);
                let new = problem.value(&next, &mut next_gradient);
                if new <= value + DECREASE * share * slope + ROUNDING * value.abs() {
                    (value, taken) = (new, true);
                    break;
                }
                share *= 0.5;
            }
            if !taken {
                break;
            }
            iterations += 1;
            std::mem::swap(&mut at, &mut next);
            std::mem::swap(&mut gradient, &mut next_gradient);
            // A distance of NaN does not end the iteration.
            if share >= 1.0 && distance <= self.tolerance {
                break;
            }
        }
        Minimum { at, distance, iterations }
    }
}

/// Returns `-H⁻¹ g` up to a residual of at most `residual`.
fn newton_step<P: Problem>(
    problem: &P,
    curvature: &P::Curvature,
    gradient: &[f64],
    residual: f64,
) -> Vec<f64> {
    let mut step = vec![0.0; gradient.len()];
    let mut left: Vec<f64> = gradient.iter().map(|g| -g).collect();
    let mut conditioned = left.clone();
    problem.precondition(curvature, &mut conditioned);
    let mut direction = conditioned.clone();
    let mut size = dot(&left, &conditioned);
    let mut product = vec![0.0; gradient.len()];
    for _ in 0..PRODUCTS {
        problem.hessian_times(curvature, &direction, &mut product);
        let bend = dot(&direction, &product);
        // The function has no curvature along the direction, so only rounding errors are left.
        if bend <= 0.0 || bend.is_nan() {
            break;
        }
        let along = size / bend;
        step.iter_mut().zip(&direction).for_each(|(s, d)| *s += along * d);
        left.iter_mut().zip(&product).for_each(|(l, p)| *l -= along * p);
        if norm(&left) <= residual {
            break;
        }
        conditioned.copy_from_slice(&left);
        problem.precondition(curvature, &mut conditioned);
        let next = dot(&left, &conditioned);
        let kept = next / size;
        size = next;
        direction.iter_mut().zip(&conditioned).for_each(|(d, c)| *d = c + kept * *d);
    }
    step
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn norm(a: &[f64]) -> f64 {
    dot(a, a).sqrt()
}

#[cfg(test)]
mod tests {
    use super::{Newton, Problem};
    use proptest::prelude::*;

    const SETTINGS: Newton = Newton { tolerance: 1e-10, max_iterations: 100 };

    /// The function `Σ_i w_i (cosh(x_i - c_i) + ½ (x_i - x_{i+1} - c_i + c_{i+1})²)`, whose minimum is at c.
    struct Chain {
        weights: Vec<f64>,
        centers: Vec<f64>,
    }

    impl Chain {
        fn off(&self, x: &[f64]) -> Vec<f64> {
            x.iter().zip(&self.centers).map(|(x, c)| x - c).collect()
        }
    }

    impl Problem for Chain {
        type Curvature = Vec<f64>;

        fn value(&self, x: &[f64], gradient: &mut [f64]) -> f64 {
            let off = self.off(x);
            gradient.fill(0.0);
            let mut sum = 0.0;
            for (i, w) in self.weights.iter().enumerate() {
                sum += w * off[i].cosh();
                gradient[i] += w * off[i].sinh();
                if i + 1 < off.len() {
                    let apart = off[i] - off[i + 1];
                    sum += 0.5 * w * apart * apart;
                    gradient[i] += w * apart;
                    gradient[i + 1] -= w * apart;
                }
            }
            sum
        }

        fn curvature(&self, x: &[f64]) -> Vec<f64> {
            self.off(x).iter().zip(&self.weights).map(|(off, w)| w * off.cosh()).collect()
        }

        fn hessian_times(&self, at: &Vec<f64>, vector: &[f64], product: &mut [f64]) {
            product.iter_mut().zip(at.iter().zip(vector)).for_each(|(p, (a, v))| *p = a * v);
            for i in 0..vector.len() - 1 {
                let apart = self.weights[i] * (vector[i] - vector[i + 1]);
                product[i] += apart;
                product[i + 1] -= apart;
            }
        }

        fn precondition(&self, at: &Vec<f64>, vector: &mut [f64]) {
            vector.iter_mut().zip(at).for_each(|(v, a)| *v /= a);
        }

        fn distance(&self, _: &[f64], step: &[f64]) -> f64 {
            step.iter().map(|s| s.abs()).fold(0.0, f64::max)
        }
    }

    proptest! {
        #[test]
        fn a_convex_function_s_minimum_is_found(
            terms in prop::collection::vec((-6.0f64..3.0, -5.0f64..5.0, -5.0f64..5.0), 1..12),
        ) {
            let chain = Chain {
                weights: terms.iter().map(|t| 10f64.powf(t.0)).collect(),
                centers: terms.iter().map(|t| t.1).collect(),
            };
            let found = SETTINGS.minimize(&chain, terms.iter().map(|t| t.2).collect());
            prop_assert!(found.distance <= 1e-10 && found.iterations < 40, "{found:?}");
            for (x, c) in found.at.iter().zip(&chain.centers) {
                prop_assert!((x - c).abs() < 1e-7, "{found:?} {c}");
            }
        }
    }

    #[test]
    fn too_few_steps_and_nan_are_told() {
        let chain = Chain { weights: vec![1.0, 2.0], centers: vec![0.0, 0.0] };
        let one = Newton { max_iterations: 1, ..SETTINGS }.minimize(&chain, vec![3.0, 1.0]);
        assert!(one.iterations == 1 && one.distance > 0.1, "{one:?}");
        assert!(SETTINGS.minimize(&chain, vec![f64::NAN, 1.0]).distance.is_nan());
        let there = SETTINGS.minimize(&chain, vec![0.0, 0.0]);
        assert_eq!((there.iterations, there.at[0].to_bits()), (0, 0));
        assert!(there.distance < 1e-300);
    }
}
