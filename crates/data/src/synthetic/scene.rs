//! Draws one image: background, fragments, object, light, noise.

use std::f64::consts::PI;

use invaspread_augment::Image;
use invaspread_random::Stream;

use super::texture::{Weave, mix};
use super::{CLASSES, shape};

/// Linear RGB between 0 and 1.
type Color = [f64; 3];

/// Draws an object of `class` in a scene of `size` x `size` pixels.
pub(super) fn draw(stream: &mut Stream, class: usize, size: usize) -> Image {
    let colors = Colors::draw(stream);
    let background = Background::draw(stream, &colors);
    let fragments: Vec<Thing> = (0..stream.below(4)).map(|_| Thing::fragment(stream, &colors)).collect();
    let object = Thing::object(stream, class, &colors);
    let light = Light::draw(stream);
    let noise = stream.between(0.01, 0.04);
    let pixel = 1.0 / size as f64;
    let mut pixels = Vec::with_capacity(size * size * 3);
    for row in 0..size {
        for column in 0..size {
            let (x, y) = ((column as f64 + 0.5) * pixel, (row as f64 + 0.5) * pixel);
            let mut color = background.at(x, y);
            for thing in fragments.iter().chain([&object]) {
                color = thing.over(color, x, y, pixel);
            }
            let light = light.at(x, y);
            for value in color {
                let value = value * light + noise * stream.normal();
                pixels.push((value.clamp(0.0, 1.0) * 255.0).round() as u8);
            }
        }
    }
    Image::new(size, size, pixels)
}

/// The two colors of the object and those of the background. They differ in brightness, so that gray copies
/// keep the object and its texture.
struct Colors {
    object: [Color; 2],
    background: [Color; 2],
}

impl Colors {
    fn draw(stream: &mut Stream) -> Self {
        // The colors of the object are brighter or darker than the background, or one is brighter and one is
        // darker.
        let middle = stream.between(0.25, 0.75);
        let spread = stream.between(0.28, 0.5);
        let (mut dark, mut bright) = (middle - spread / 2.0, middle + spread / 2.0);
        let lift = (0.06 - dark).max(0.0) - (bright - 0.94).max(0.0);
        (dark, bright) = (dark + lift, bright + lift);
        let background = loop {
            let candidate = stream.between(0.08, 0.92);
            if (candidate - f64::midpoint(dark, bright)).abs() > 0.12 {
                break candidate;
            }
        };
        let mut object = [of_brightness(stream, dark), of_brightness(stream, bright)];
        if stream.chance(0.5) {
            object.swap(0, 1);
        }
        let other = (background + stream.between(-0.15, 0.15)).clamp(0.05, 0.95);
        Self { object, background: [of_brightness(stream, background), of_brightness(stream, other)] }
    }
}

/// Draws a random hue and saturation with the given brightness (by the weights of Rec. 601, which gray copies
/// use).
fn of_brightness(stream: &mut Stream, brightness: f64) -> Color {
    let hue = stream.uniform() * 6.0;
    let saturation = stream.between(0.0, 0.75);
    let pure = [0.0, 4.0, 2.0].map(|shift: f64| ((hue + shift).rem_euclid(6.0) - 3.0).abs() - 1.0);
    let pure = pure.map(|value| value.clamp(0.0, 1.0));
    let tone = 0.299 * pure[0] + 0.587 * pure[1] + 0.114 * pure[2];
    // The color lies on the line from gray to the pure hue, as far from gray as the saturation says, but
    // within the RGB cube.
    let offset = pure.map(|value| (value - tone) * saturation);
    let room = offset.iter().fold(1.0f64, |room, &step| {
        if step > 0.0 {
            room.min((1.0 - brightness) / step)
        } else if step < 0.0 {
            room.min(brightness / -step)
        } else {
            room
        }
    });
    offset.map(|step| brightness + step * room)
}

fn blend(a: Color, b: Color, part: f64) -> Color {
    [0, 1, 2].map(|channel| a[channel] + (b[channel] - a[channel]) * part)
}

/// A background: a gradient with soft blobs and faint lines.
struct Background {
    ends: [Color; 2],
    direction: [f64; 2],
    blobs: Vec<([f64; 2], f64, Color, f64)>,
    lines: Vec<([f64; 2], f64, f64, Color, f64)>,
}

impl Background {
    fn draw(stream: &mut Stream, colors: &Colors) -> Self {
        let angle = stream.between(0.0, 2.0 * PI);
        let tint = |stream: &mut Stream| {
            let [a, b] = colors.background;
            let base = blend(a, b, stream.uniform());
            let own = colors.object[stream.below(2)];
            blend(base, own, stream.between(0.0, 0.5))
        };
        let blobs = (0..2 + stream.below(4))
            .map(|_| {
                let place = [stream.uniform(), stream.uniform()];
                (place, stream.between(0.08, 0.35), tint(stream), stream.between(0.3, 0.8))
            })
            .collect();
        let lines = (0..stream.below(4))
            .map(|_| {
                let angle = stream.between(0.0, PI);
                let place = stream.between(-0.7, 0.7);
                (
                    [angle.cos(), angle.sin()],
                    place,
                    stream.between(0.01, 0.04),
                    tint(stream),
                    stream.between(0.3, 0.8),
                )
            })
            .collect();
        Self { ends: colors.background, direction: [angle.cos(), angle.sin()], blobs, lines }
    }

    fn at(&self, x: f64, y: f64) -> Color {
        let (x, y) = (x - 0.5, y - 0.5);
        let along = 0.5 + 0.7 * (x * self.direction[0] + y * self.direction[1]);
        let mut color = blend(self.ends[0], self.ends[1], along.clamp(0.0, 1.0));
        for (place, radius, tint, strength) in &self.blobs {
            let distance = (x + 0.5 - place[0]).hypot(y + 0.5 - place[1]) / radius;
            color = blend(color, *tint, strength * (-distance * distance).exp());
        }
        for (normal, place, width, tint, strength) in &self.lines {
            let distance = (x * normal[0] + y * normal[1] - place).abs() / width;
            color = blend(color, *tint, strength * (1.5 - distance).clamp(0.0, 1.0));
        }
        color
    }
}

/// A shape with a texture, at some place in the frame.
struct Thing {
    outline: usize,
    filling: usize,
    center: [f64; 2],
    radius: f64,
    /// The ratio of width to height of the shape.
    squeeze: f64,
    turn: [f64; 2],
    weave: Weave,
    colors: [Color; 2],
    opacity: f64,
}

impl Thing {
    fn object(stream: &mut Stream, class: usize, colors: &Colors) -> Self {
        let radius = stream.between(0.3, 0.48);
        let room = (0.5 - 0.8 * radius).max(0.0) + 0.04;
        Self {
            outline: class,
            filling: class,
            center: [0.5 + stream.between(-room, room), 0.5 + stream.between(-room, room)],
            radius,
            squeeze: stream.between(0.87, 1.15),
            turn: turn(stream, 0.8),
            weave: Weave {
                period: stream.between(0.36, 0.52),
                shift: [stream.uniform(), stream.uniform()],
                soft: 0.08,
            },
            colors: colors.object,
            opacity: 1.0,
        }
    }

    /// Draws a small, faint piece of any object, so that fragments give no information about the class.
    fn fragment(stream: &mut Stream, colors: &Colors) -> Self {
        let [a, b] = colors.background;
        let part = stream.between(0.1, 0.5);
        let own = colors.object.map(|own| blend(a, own, part));
        Self {
            outline: stream.below(CLASSES.len()),
            filling: stream.below(CLASSES.len()),
            center: [stream.uniform(), stream.uniform()],
            radius: stream.between(0.08, 0.2),
            squeeze: stream.between(0.7, 1.4),
            turn: turn(stream, PI),
            weave: Weave {
                period: stream.between(0.5, 1.2),
                shift: [stream.uniform(), stream.uniform()],
                soft: 0.1,
            },
            colors: [blend(own[0], b, 0.2), own[1]],
            opacity: stream.between(0.4, 0.9),
        }
    }

    /// Draws this thing over `below`, with an edge that is `pixel` wide.
    fn over(&self, below: Color, x: f64, y: f64, pixel: f64) -> Color {
        let (x, y) = ((x - self.center[0]) / self.radius, (y - self.center[1]) / self.radius);
        let [cos, sin] = self.turn;
        let (x, y) = ((x * cos + y * sin) / self.squeeze, (y * cos - x * sin) * self.squeeze);
        let inside = 0.5 - shape::distance(self.outline, x, y) * self.radius / pixel;
        if inside <= 0.0 {
            return below;
        }
        // Takes four samples of the texture: at 32 pixels its period is only a few pixels long.
        let step = 0.25 * pixel / self.radius;
        let samples = [(-step, -step), (step, -step), (-step, step), (step, step)];
        let part =
            samples.map(|(dx, dy)| mix(self.filling, self.weave, x + dx, y + dy)).iter().sum::<f64>() / 4.0;
        blend(below, blend(self.colors[0], self.colors[1], part), inside.min(1.0) * self.opacity)
    }
}

/// Returns cosine and sine of an angle of at most `most` in either direction.
fn turn(stream: &mut Stream, most: f64) -> [f64; 2] {
    let angle = stream.between(-most, most);
    [angle.cos(), angle.sin()]
}

/// The light of a scene: it makes one side brighter than the other, and the whole image brighter or darker.
struct Light {
    level: f64,
    slope: [f64; 2],
}

impl Light {
    fn draw(stream: &mut Stream) -> Self {
        let (angle, strength) = (stream.between(0.0, 2.0 * PI), stream.between(0.0, 0.6));
        Self { level: stream.between(0.7, 1.15), slope: [angle.cos() * strength, angle.sin() * strength] }
    }

    fn at(&self, x: f64, y: f64) -> f64 {
        self.level * (1.0 + self.slope[0] * (x - 0.5) + self.slope[1] * (y - 0.5))
    }
}
