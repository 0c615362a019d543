//! Random numbers that a seed decides: the same on every machine, and for good.

/// A generator of random numbers (SplitMix64), for a simulation and for what runs in it.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    /// The generator that this seed begins.
    pub fn new(seed: u64) -> Self {
        let mut random = Self { state: seed };
        // Neighbouring seeds should not begin alike.
        random.state = random.next().wrapping_add(seed.rotate_left(32));
        random
    }

    /// Another generator, which takes one number from this one.
    pub fn fork(&mut self) -> Self {
        Self::new(self.next())
    }

    /// Any number of 64 bits.
    #[expect(clippy::should_implement_trait, reason = "no iterator: it never ends")]
    pub fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`; 0 where that is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// A number from `least` to `most`, both included.
    pub fn between(&mut self, least: usize, most: usize) -> usize {
        least + self.below((most.saturating_sub(least) as u64).saturating_add(1)) as usize
    }

    /// True so many times in 1,024.
    pub fn chance(&mut self, per_1024: u32) -> bool {
        per_1024 > 0 && self.below(1024) < u64::from(per_1024)
    }

    /// One of several, of which there must be one.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len() as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_numbers_and_another_seed_others() {
        let numbers = |seed| {
            let mut random = Random::new(seed);
            (0..100).map(move |_| random.next()).collect::<Vec<_>>()
        };
        assert_eq!(numbers(7), numbers(7));
        assert!(numbers(7).iter().zip(numbers(8)).all(|(one, other)| *one != other));
    }

    #[test]
    fn numbers_stay_within_their_bounds_and_reach_them() {
        let mut random = Random::new(1);
        let numbers: Vec<_> = (0..1000).map(|_| random.between(3, 6)).collect();
        assert_eq!((numbers.iter().min(), numbers.iter().max()), (Some(&3), Some(&6)));
        let hits = (0..1000).filter(|_| random.chance(512)).count();
        assert!((400..600).contains(&hits), "{hits}");
        assert!((0..1000).all(|_| !random.chance(0)));
    }
}
