//! The ten outlines, given by signed distances: negative inside, in units of the object's radius (the
//! distance from the center to a tip is about 1).
//!
//! The formulas follow I. Quilez, "2D distance functions". A few are bounds and not exact distances, which is
//! enough for an edge that is one pixel wide.

use std::f64::consts::PI;

/// Returns the signed distance of the point `(x, y)` from the outline of `class`.
pub(super) fn distance(class: usize, x: f64, y: f64) -> f64 {
    let radius = x.hypot(y);
    match class {
        0 => radius - 0.9,
        1 => x.abs().max(y.abs()) - 0.78,
        2 => regular(3, x, y, 0.52),
        3 => star(x, y),
        4 => (radius - 0.68).abs() - 0.28,
        5 => {
            let (long, short) = (x.abs().max(y.abs()), x.abs().min(y.abs()));
            (long - 0.98).max(short - 0.33)
        }
        6 => (radius - 0.97).max(0.66 - (x - 0.52).hypot(y)),
        7 => arrow(x, y),
        8 => heart(x, y),
        _ => regular(6, x, y, 0.82),
    }
}

/// Returns the distance from a regular polygon whose sides are `inner` away from the center.
fn regular(sides: u32, x: f64, y: f64, inner: f64) -> f64 {
    let sector = 2.0 * PI / f64::from(sides);
    let angle = y.atan2(x).rem_euclid(sector) - sector / 2.0;
    x.hypot(y) * angle.cos() - inner
}

/// Returns the distance from a star with five points.
fn star(x: f64, y: f64) -> f64 {
    let sector = 2.0 * PI / 5.0;
    let angle = (y.atan2(x).rem_euclid(sector) - sector / 2.0).abs();
    let (tip, notch) = (1.1, 0.5);
    // The edge from the notch (angle 0) to the tip (angle of half a sector) is a line through both.
    let (tip_x, tip_y) = (tip * (sector / 2.0).cos(), tip * (sector / 2.0).sin());
    let (along_x, along_y) = (tip_x - notch, tip_y);
    let (point_x, point_y) = (x.hypot(y) * angle.cos() - notch, x.hypot(y) * angle.sin());
    (point_x * along_y - point_y * along_x) / along_x.hypot(along_y)
}

/// Returns the distance from an arrow, a shaft and a head, that points along x.
fn arrow(x: f64, y: f64) -> f64 {
    let shaft = (x - 0.1).max(-0.95 - x).max(y.abs() - 0.3);
    // The head's sides run from the tip (1, 0) to (0, 0.85).
    let head = ((0.85 * (x - 1.0) + y.abs()) / 0.85f64.hypot(1.0)).max(-x);
    shaft.min(head)
}

/// Returns the distance from a heart, two lobes above a point (y increases downwards).
fn heart(x: f64, y: f64) -> f64 {
    // The coordinates are changed so that the point is the origin and the notch is at (0, 1).
    let scale = 0.6;
    let (x, y) = (x.abs() * scale, 0.52 - y * scale);
    let distance = if x + y > 1.0 {
        (x - 0.25).hypot(y - 0.75) - 0.125f64.sqrt()
    } else {
        let along = 0.5 * (x + y).max(0.0);
        x.hypot(y - 1.0).min((x - along).hypot(y - along)).copysign(x - y)
    };
    distance / scale
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synthetic::CLASSES;

    /// Checks that no outline reaches far beyond the radius, and that each one fills a reasonable part of its
    /// square.
    #[test]
    fn every_outline_fills_its_circle() {
        for (class, name) in CLASSES.iter().enumerate() {
            let grid = (0..200 * 200)
                .map(|at| (f64::from(at % 200) / 80.0 - 1.25, f64::from(at / 200) / 80.0 - 1.25));
            let inside: Vec<(f64, f64)> = grid.filter(|&(x, y)| distance(class, x, y) < 0.0).collect();
            let reach = inside.iter().map(|(x, y)| x.hypot(*y)).fold(0.0, f64::max);
            let area = inside.len() as f64 / (80.0 * 80.0);
            assert!((0.85..1.2).contains(&reach), "{name} reaches {reach}");
            assert!((0.9..2.8).contains(&area), "{name} covers {area}");
        }
    }
}
