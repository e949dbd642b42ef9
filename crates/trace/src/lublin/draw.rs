//! Random numbers as the reference generator draws them: those of `drand48(3)`, and what it makes of them.

/// The linear congruential generator of `drand48(3)`: 48 bits, the same numbers everywhere.
pub struct Draw(u64);

impl Draw {
    /// Begins as `srand48(3)` does with this seed.
    pub const fn new(seed: u32) -> Self {
        Self(((seed as u64) << 16) | 0x330e)
    }

    /// At least 0, below 1.
    pub fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(0x5_DEEC_E66D).wrapping_add(0xB) & ((1 << 48) - 1);
        self.0 as f64 / (1_u64 << 48) as f64
    }

    fn log(&mut self) -> f64 {
        self.uniform().ln()
    }

    /// Of a gamma distribution: exponentials for the whole part of its shape, for the rest an exponential
    /// times a beta (Jain, "The Art of Computer Systems Performance Analysis", chapter 28).
    pub fn gamma(&mut self, shape: f64, scale: f64) -> f64 {
        let whole = shape.floor();
        let logs = (0..whole as u32).fold(0., |sum, _| sum + self.log());
        let mut sum = -logs * scale;
        let rest = shape - whole;
        if rest > 0. {
            let beta = self.beta(rest, 1. - rest);
            sum += scale * beta * -self.log();
        }
        sum
    }

    /// Of a beta distribution, both of whose shapes are below 1.
    fn beta(&mut self, a: f64, b: f64) -> f64 {
        loop {
            let x = self.uniform().powf(1. / a);
            let y = self.uniform().powf(1. / b);
            if x + y <= 1. {
                return x / (x + y);
            }
        }
    }
}

/// So near is near enough. No better than the reference generator's: its prices of half hours have this error.
const NEAR: f64 = 1e-10;
/// Neither series takes more steps than some dozens with the constants there are.
const STEPS: u32 = 1000;

/// The distribution function of the gamma distribution: the incomplete gamma function, by its series or by
/// its continued fraction (Press and others, "Numerical Recipes", section 6.2).
pub fn gamma_cdf(x: f64, shape: f64, scale: f64) -> f64 {
    let x = x / scale;
    let factor = (shape * x.ln() - x - ln_gamma(shape)).exp();
    if x < shape + 1. {
        factor * series(x, shape)
    } else {
        1. - factor * fraction(x, shape)
    }
}

fn series(x: f64, shape: f64) -> f64 {
    let mut term = 1. / shape;
    let mut sum = term;
    for step in 1..STEPS {
        term *= x / (shape + f64::from(step));
        sum += term;
        if term < sum * NEAR {
            break;
        }
    }
    sum
}

/// Numerators and denominators by their recurrence, looked at after every second step.
fn fraction(x: f64, shape: f64) -> f64 {
    let (mut before, mut now) = ((1., 0.), (x, 1.));
    let mut value = 0.;
    for step in (1..STEPS).map(f64::from) {
        let odd = step - shape;
        before = (now.0 + odd * before.0, now.1 + odd * before.1);
        now = (x * before.0 + step * now.0, x * before.1 + step * now.1);
        // Both are scaled, lest they grow beyond measure.
        let scale = now.0;
        before = (before.0 / scale, before.1 / scale);
        now = (1., now.1 / scale);
        let last = std::mem::replace(&mut value, now.1);
        if ((value - last) / value).abs() < NEAR {
            break;
        }
    }
    value
}

/// The logarithm of the gamma function, over 0: Stirling's series, far enough out that 7 terms are exact.
fn ln_gamma(x: f64) -> f64 {
    const TERMS: [f64; 7] = [
        1. / 12.,
        -1. / 360.,
        1. / 1260.,
        -1. / 1680.,
        1. / 1188.,
        -691. / 360_360.,
        1. / 156.,
    ];
    let mut shift = 0.;
    let mut far = x;
    while far < 15. {
        shift += far.ln();
        far += 1.;
    }
    let inverse = 1. / (far * far);
    let tail = TERMS.iter().rev().fold(0., |sum, term| sum * inverse + term) / far;
    (far - 0.5) * far.ln() - far + 0.5 * (2. * std::f64::consts::PI).ln() + tail - shift
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_drand48() {
        // glibc 2.36: srand48(1), then drand48 three times.
        let mut draw = Draw::new(1);
        let drawn = [draw.uniform(), draw.uniform(), draw.uniform()];
        assert_eq!(
            drawn,
            [0.041630344771878214, 0.45449244472862915, 0.8348172181669149]
        );
    }

    #[test]
    fn the_gamma_function_is_as_in_tables() {
        for (x, value) in [
            (1., 0.),
            (0.5, 0.5 * std::f64::consts::PI.ln()),
            (6., 120_f64.ln()),
            (21., 42.335_616_460_753_485),
        ] {
            assert!((ln_gamma(x) - value).abs() < 1e-13, "{x}: {}", ln_gamma(x));
        }
        // Of shape 1 it is the exponential distribution.
        for x in [0.1, 1., 1.9, 2.1, 8.] {
            assert!((gamma_cdf(x, 1., 1.) - (1. - (-x).exp())).abs() < 1e-9, "{x}");
        }
    }
}
