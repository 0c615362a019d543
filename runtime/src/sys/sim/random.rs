//! Seeded random numbers, the same on every machine and in every version.

/// A random number generator (SplitMix64), for a simulation and the programs in it.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    /// Makes a generator from a seed.
    pub fn new(seed: u64) -> Self {
        let mut random = Self { state: seed };
        // Adjacent seeds should give unrelated sequences.
        random.state = random.next().wrapping_add(seed.rotate_left(32));
        random
    }

    /// Makes another generator, seeded with a number of this one.
    pub fn fork(&mut self) -> Self {
        Self::new(self.next())
    }

    /// A 64-bit number.
    #[expect(clippy::should_implement_trait, reason = "not an iterator: it never ends")]
    pub fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`; 0 if `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// A number from `least` to `most`, inclusive.
    pub fn between(&mut self, least: usize, most: usize) -> usize {
        least + self.below((most.saturating_sub(least) as u64).saturating_add(1)) as usize
    }

    /// True with a probability of `per_1024` in 1,024.
    pub fn chance(&mut self, per_1024: u32) -> bool {
        per_1024 > 0 && self.below(1024) < u64::from(per_1024)
    }

    /// One of several choices.
    ///
    /// # Panics
    ///
    /// If there are none.
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
