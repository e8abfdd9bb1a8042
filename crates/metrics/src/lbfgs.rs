//! Limited-memory BFGS: a minimiser of smooth functions that keeps the last few steps instead of a Hessian.
//!
//! `p = -H g`, `H` the inverse Hessian that the last m pairs `s = x⁺ - x`, `y = g⁺ - g` imply (the two-loop recursion of Nocedal
//! 1980), starting from `s·y / y·M y` times a preconditioner M; then `x⁺ = x + t p` with t by the weak Wolfe conditions.
//!
//! Shapes: x, g and p (p). Everything is in f64 and on the calling thread, in one order; only the function itself may use others.

/// Share of the predicted decrease that a step must reach.
const DECREASE: f64 = 1e-4;
/// Share of the slope that a step must take away.
const CURVATURE: f64 = 0.9;
/// A function of this relative difference is taken as equal: near the minimum its decrease drowns in rounding.
const ROUNDING: f64 = 1e-14;
/// Most evaluations of one line search.
const SEARCH: usize = 60;

/// The settings.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lbfgs {
    /// m.
    pub(crate) memory: usize,
    /// Ends when no partial derivative is further from zero.
    pub(crate) tolerance: f64,
    /// Most steps.
    pub(crate) max_iterations: usize,
}

/// Where the iteration ended.
#[derive(Debug)]
pub(crate) struct Minimum {
    /// (p)
    pub(crate) at: Vec<f64>,
    /// The partial derivative there that is furthest from zero.
    pub(crate) largest_derivative: f64,
    /// Steps that were done.
    pub(crate) iterations: usize,
}

/// A step `s`, the change `y` of the gradient over it, and 1 / s·y.
struct Pair {
    step: Vec<f64>,
    change: Vec<f64>,
    inverse: f64,
}

impl Lbfgs {
    /// Minimises `function`, which writes its gradient (p) at x (p) and returns its value, from `start` (p). `precondition`
    /// multiplies a vector (p) by M, which is symmetric, positive definite and near the inverse Hessian.
    ///
    /// Ends early where no step lowers the function any more; the caller compares `largest_derivative`.
    pub(crate) fn minimize(
        &self,
        start: Vec<f64>,
        mut function: impl FnMut(&[f64], &mut [f64]) -> f64,
        precondition: impl Fn(&mut [f64]),
    ) -> Minimum {
        let mut at = start;
        let mut gradient = vec![0.0; at.len()];
        let mut value = function(&at, &mut gradient);
        let (mut next, mut next_gradient) = (at.clone(), gradient.clone());
        let mut pairs: Vec<Pair> = Vec::with_capacity(self.memory + 1);
        let mut iterations = 0;
        // Negated, so that a NaN ends it.
        while iterations < self.max_iterations && largest(&gradient) > self.tolerance {
            let mut direction = descent(&pairs, &gradient, &precondition);
            let mut slope = dot(&direction, &gradient);
            if !(slope < 0.0) {
                pairs.clear();
                direction = descent(&pairs, &gradient, &precondition);
                slope = dot(&direction, &gradient);
            }

            // Between a step too short and one too long: doubled while there is no such, halved afterwards.
            let (mut short, mut long, mut step) = (0.0, f64::INFINITY, 1.0);
            let mut found = None;
            for _ in 0..SEARCH {
                next.iter_mut().zip(&at).zip(&direction).for_each(|((n, a), d)| *n = a + step * d);
                let new = function(&next, &mut next_gradient);
                let allowed = value + DECREASE * step * slope + ROUNDING * value.abs();
                if !(new <= allowed) {
                    long = step;
                } else if dot(&direction, &next_gradient) < CURVATURE * slope {
                    short = step;
                } else {
                    found = Some(new);
                    break;
                }
                step = if long.is_finite() { 0.5 * (short + long) } else { 2.0 * step };
            }
            let Some(new) = found else {
                if pairs.is_empty() {
                    break;
                }
                pairs.clear(); // what was remembered misleads: once more along the gradient
                continue;
            };
            iterations += 1;
            let difference = |new: &[f64], old: &[f64]| new.iter().zip(old).map(|(n, o)| n - o).collect();
            let pair: (Vec<f64>, Vec<f64>) = (difference(&next, &at), difference(&next_gradient, &gradient));
            let product = dot(&pair.0, &pair.1);
            if product > 0.0 {
                if pairs.len() == self.memory {
                    pairs.remove(0);
                }
                pairs.push(Pair { step: pair.0, change: pair.1, inverse: 1.0 / product });
            }
            std::mem::swap(&mut at, &mut next);
            std::mem::swap(&mut gradient, &mut next_gradient);
            value = new;
        }
        Minimum { largest_derivative: largest(&gradient), at, iterations }
    }
}

/// The direction `-H g`.
fn descent(pairs: &[Pair], gradient: &[f64], precondition: impl Fn(&mut [f64])) -> Vec<f64> {
    let mut direction: Vec<f64> = gradient.iter().map(|g| -g).collect();
    let mut along = vec![0.0; pairs.len()];
    for (pair, along) in pairs.iter().zip(&mut along).rev() {
        *along = pair.inverse * dot(&pair.step, &direction);
        add(&mut direction, -*along, &pair.change);
    }
    precondition(&mut direction);
    if let Some(last) = pairs.last() {
        let mut change = last.change.clone();
        precondition(&mut change);
        let scale = 1.0 / (last.inverse * dot(&last.change, &change));
        direction.iter_mut().for_each(|d| *d *= scale);
    }
    for (pair, along) in pairs.iter().zip(&along) {
        let back = pair.inverse * dot(&pair.change, &direction);
        add(&mut direction, along - back, &pair.step);
    }
    direction
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// `to += factor * of`.
fn add(to: &mut [f64], factor: f64, of: &[f64]) {
    to.iter_mut().zip(of).for_each(|(t, o)| *t += factor * o);
}

/// The largest magnitude, NaN if there is one.
fn largest(a: &[f64]) -> f64 {
    a.iter().fold(0.0, |largest, v| if v.abs() <= largest { largest } else { v.abs() })
}

#[cfg(test)]
mod tests {
    use super::Lbfgs;
    use proptest::prelude::*;

    const SETTINGS: Lbfgs = Lbfgs { memory: 10, tolerance: 1e-9, max_iterations: 500 };

    #[test]
    fn rosenbrock_s_valley_is_followed_to_its_end() {
        // Σ 100 (x_{i+1} - x_i²)² + (1 - x_i)², least at ones.
        let found = SETTINGS.minimize(
            vec![-1.2, 1.0, -1.2, 1.0, 0.3, -2.0],
            |x, gradient| {
                gradient.fill(0.0);
                let mut sum = 0.0;
                for i in 0..x.len() - 1 {
                    let (bend, left) = (x[i + 1] - x[i] * x[i], 1.0 - x[i]);
                    sum += 100.0 * bend * bend + left * left;
                    gradient[i] -= 400.0 * bend * x[i] + 2.0 * left;
                    gradient[i + 1] += 200.0 * bend;
                }
                sum
            },
            |_| {},
        );
        assert!(found.largest_derivative <= 1e-9, "{found:?}");
        assert!(found.at.iter().all(|x| (x - 1.0).abs() < 1e-9), "{found:?}");
    }

    #[test]
    fn a_function_without_a_minimum_or_of_nan_ends() {
        let slope = SETTINGS.minimize(
            vec![0.0],
            |x, gradient| {
                gradient[0] = 1.0;
                x[0]
            },
            |_| {},
        );
        assert!(slope.largest_derivative > 0.5);
        let nan = SETTINGS.minimize(
            vec![1.0],
            |_, gradient| {
                gradient[0] = f64::NAN;
                f64::NAN
            },
            |_| {},
        );
        assert!(nan.largest_derivative.is_nan());
        let there = SETTINGS.minimize(
            vec![0.0],
            |x, gradient| {
                gradient[0] = 2.0 * x[0];
                x[0] * x[0]
            },
            |_| {},
        );
        assert_eq!((there.iterations, there.at[0].to_bits()), (0, 0));
    }

    #[test]
    fn the_inverse_hessian_as_preconditioner_ends_in_one_step() {
        // ½ a x² with a of 1e-6 and 1e6.
        let curvatures = [1e-6, 1e6];
        let found = SETTINGS.minimize(
            vec![1e4, 3.0],
            |x, gradient| {
                (0..2).for_each(|i| gradient[i] = curvatures[i] * x[i]);
                0.5 * (gradient[0] * x[0] + gradient[1] * x[1])
            },
            |v| v.iter_mut().zip(curvatures).for_each(|(v, a)| *v /= a),
        );
        assert!(found.iterations == 1 && found.largest_derivative <= 1e-9, "{found:?}");
    }

    proptest! {
        /// `½ Σ a_i (x_i - c_i)²` with curvatures from 1e-2 to 1e3.
        #[test]
        fn a_quadratic_s_minimum_is_its_centre(
            terms in prop::collection::vec((-2.0f64..3.0, -10.0f64..10.0, -10.0f64..10.0), 1..12),
        ) {
            let start = terms.iter().map(|t| t.2).collect();
            let found = SETTINGS.minimize(start, |x, gradient| {
                let mut sum = 0.0;
                for ((x, g), (power, centre, _)) in x.iter().zip(gradient).zip(&terms) {
                    *g = 10f64.powf(*power) * (x - centre);
                    sum += 0.5 * *g * (x - centre);
                }
                sum
            }, |_| {});
            for (x, (_, centre, _)) in found.at.iter().zip(&terms) {
                prop_assert!((x - centre).abs() < 1e-6, "{found:?} {terms:?}");
            }
        }
    }
}
