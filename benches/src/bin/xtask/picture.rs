//! A flame graph: each frame is as wide as the samples that it is part of, and stands on the frame that called it.

use std::fmt::Write as _;

use crate::stacks::Stacks;

const WIDTH: f64 = 1_600.0;
const ROW: f64 = 17.0;
/// Room for the title.
const HEAD: f64 = 30.0;
/// Narrower frames are left out.
const NARROWEST: f64 = 0.5;
/// Of a letter.
const LETTER: f64 = 6.6;

/// A frame as it is drawn: which samples of all, counted along the width, and how far up.
struct Spot<'a> {
    name: &'a str,
    depth: usize,
    first: u64,
    end: u64,
}

/// The picture as SVG: without a script, its tooltips have each frame's name and part.
pub(crate) fn draw(stacks: &Stacks, title: &str) -> String {
    let spots = spots(stacks);
    let rows = spots.iter().map(|spot| spot.depth + 1).max().unwrap_or(0);
    #[allow(clippy::cast_precision_loss, reason = "depths and counts lie far below 2^52")]
    let (height, scale) = (HEAD + ROW * rows as f64, WIDTH / stacks.samples().max(1) as f64);
    let mut svg = String::new();
    // Writing to a string does not fail.
    let _infallible = writeln!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"monospace\" \
         font-size=\"11\">\n<text x=\"8\" y=\"19\" font-size=\"15\">{}, {} samples</text>",
        escape(title),
        stacks.samples()
    );
    for spot in spots {
        #[allow(clippy::cast_precision_loss, reason = "depths and counts lie far below 2^52")]
        let (left, width, top) =
            (spot.first as f64 * scale, (spot.end - spot.first) as f64 * scale, height - ROW * (spot.depth + 1) as f64);
        if width >= NARROWEST {
            push_spot(&mut svg, spot.name, left, width, top);
        }
    }
    svg.push_str("</svg>\n");
    svg
}

fn push_spot(svg: &mut String, name: &str, left: f64, width: f64, top: f64) {
    let part = width / WIDTH * 100.0;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a handful of letters")]
    let characters = (width / LETTER) as usize;
    let label: String = if characters < 3 { String::new() } else { name.chars().take(characters).collect() };
    let (hue, text, name) = (hue(name), top + 12.0, escape(name));
    let _infallible = writeln!(
        svg,
        "<g><title>{name}: {part:.1} %</title><rect x=\"{left:.1}\" y=\"{top}\" width=\"{width:.1}\" height=\"{:.0}\" \
         fill=\"hsl({hue},75%,65%)\"/><text x=\"{:.1}\" y=\"{text}\">{}</text></g>",
        ROW - 1.0,
        left + 3.0,
        escape(&label)
    );
}

/// Frames of neighbouring stacks that are the same up to there are one.
fn spots(stacks: &Stacks) -> Vec<Spot<'_>> {
    let (mut done, mut open): (Vec<Spot<'_>>, Vec<Spot<'_>>) = (Vec::new(), Vec::new());
    let mut first = 0;
    for (stack, count) in stacks.iter() {
        let common = open.iter().zip(stack).take_while(|(spot, frame)| spot.name == *frame).count();
        done.extend(open.drain(common..));
        let fresh = stack.iter().enumerate().skip(common);
        open.extend(fresh.map(|(depth, name)| Spot { name, depth, first, end: first }));
        first += count;
        open.iter_mut().for_each(|spot| spot.end = first);
    }
    done.extend(open);
    done
}

/// From yellow to red; the same for the same name.
fn hue(name: &str) -> u32 {
    name.bytes().fold(7_u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(u32::from(byte))) % 55
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_as_wide_as_their_samples() {
        let stacks =
            Stacks::of_perf("t\n\t1 <a>\n\t1 main\n\nt\n\t1 <a>\n\t1 main\n\nt\n\t1 b\n\t1 main\n\nu\n\t1 c\n\n");
        let found: Vec<(&str, usize, u64, u64)> =
            spots(&stacks).iter().map(|spot| (spot.name, spot.depth, spot.first, spot.end)).collect();
        let expected =
            [("<a>", 2, 0, 2), ("t", 0, 0, 3), ("main", 1, 0, 3), ("b", 2, 2, 3), ("u", 0, 3, 4), ("c", 1, 3, 4)];
        assert_eq!(found, expected);
        let svg = draw(&stacks, "a & b");
        assert!(svg.contains("<title>&lt;a&gt;: 50.0 %</title>") && svg.contains("a &amp; b, 4 samples"));
    }
}
