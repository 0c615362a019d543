//! Estimates from several whole runs: a mean, and an interval of confidence.

/// The mean of a figure over several runs, with the interval in which the true mean lies with 95 % confidence.
///
/// Runs are independent of each other, which the seconds of a run are not: a queue is long for a while. The interval is
/// that of Student's t distribution, which is exact for values from a normal distribution and close to it for means and
/// percentiles of many requests. It covers what varies from run to run, but nothing that is the same in all of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The mean of the runs.
    pub mean: f64,
    /// The lower end of the interval.
    pub low: f64,
    /// The upper end of the interval.
    pub high: f64,
}

impl Estimate {
    /// The estimate from a value per run; `None` with fewer than two, which have no interval.
    ///
    /// # Examples
    ///
    /// ```
    /// use ringspun_load::Estimate;
    ///
    /// let estimate = Estimate::of(&[9.0, 10.0, 11.0]).unwrap();
    /// assert_eq!(estimate.mean, 10.0);
    /// assert_eq!(format!("{:.2} to {:.2}", estimate.low, estimate.high), "7.52 to 12.48");
    /// assert_eq!(Estimate::of(&[9.0]), None);
    /// ```
    pub fn of(values: &[f64]) -> Option<Self> {
        let count = values.len() as f64;
        let quantile = student_quantile(values.len().checked_sub(1)?)?;
        let mean = values.iter().sum::<f64>() / count;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let half = quantile * (squares / (count - 1.0) / count).sqrt();
        Some(Self { mean, low: mean - half, high: mean + half })
    }

    /// Half the width of the interval in percent of the mean; `None` if that is zero.
    pub fn half_width_percent(&self) -> Option<f64> {
        (self.mean != 0.0).then(|| 100.0 * (self.high - self.mean) / self.mean.abs())
    }
}

/// The 97.5 % quantile of Student's t distribution; `None` for no degree of freedom.
fn student_quantile(freedom: usize) -> Option<f64> {
    const QUANTILES: [f64; 10] =
        [12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281];
    match freedom {
        0 => None,
        1..=10 => Some(QUANTILES[freedom - 1]),
        _ => {
            // The expansion around the normal quantile (Abramowitz and Stegun, 26.7.5), here right to four digits.
            let (z, n) = (1.959_964_f64, freedom as f64);
            let first = (z.powi(3) + z) / (4.0 * n);
            let second = (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / (96.0 * n * n);
            let third =
                (3.0 * z.powi(7) + 19.0 * z.powi(5) + 17.0 * z.powi(3) - 15.0 * z) / (384.0 * n.powi(3));
            Some(z + first + second + third)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulated::{Random, response_times};

    #[test]
    fn quantiles_are_those_of_tables() {
        for (freedom, expected) in
            [(1, 12.7062), (4, 2.7764), (11, 2.2010), (19, 2.0930), (30, 2.0423), (120, 1.9799)]
        {
            let found = student_quantile(freedom).unwrap();
            assert!((found - expected).abs() < 2e-4, "{freedom}: {found}");
        }
        assert_eq!(student_quantile(0), None);
    }

    #[test]
    fn equal_values_have_no_width() {
        let estimate = Estimate::of(&[5.0; 4]).unwrap();
        assert_eq!(estimate, Estimate { mean: 5.0, low: 5.0, high: 5.0 });
        assert_eq!((Estimate::of(&[]), estimate.half_width_percent()), (None, Some(0.0)));
    }

    /// Five runs at an M/M/1 server, a hundred times over: the interval is to hold what theory says in 90 or more.
    #[test]
    fn intervals_hold_the_true_value_as_often_as_they_say() {
        const UTILIZATION: f64 = 0.6;
        // Response times are exponential with the rate 1 - u, in service times.
        let quantile = |share: f64| -(1.0 - share).ln() / (1.0 - UTILIZATION);
        let expected = [1.0 / (1.0 - UTILIZATION), quantile(0.5), quantile(0.9), quantile(0.99)];
        let mut holding = [0; 4];
        for experiment in 0..100 {
            let runs: Vec<[f64; 4]> = (0..5)
                .map(|run| {
                    let seed = 100_000 + experiment * 5 + run;
                    let mut random = Random::new(seed);
                    let mut times = Vec::new();
                    response_times(
                        UTILIZATION,
                        20_000,
                        seed,
                        || random.exponential(),
                        |time| times.push(time),
                    );
                    times.sort_unstable_by(f64::total_cmp);
                    let at = |share: f64| times[(times.len() as f64 * share) as usize];
                    [times.iter().sum::<f64>() / times.len() as f64, at(0.5), at(0.9), at(0.99)]
                })
                .collect();
            for (figure, expected) in expected.iter().enumerate() {
                let values: Vec<f64> = runs.iter().map(|run| run[figure]).collect();
                let Estimate { low, high, .. } = Estimate::of(&values).unwrap();
                holding[figure] += u32::from((low..high).contains(expected));
            }
        }
        assert!(holding.iter().all(|count| *count >= 90), "{holding:?} of 100");
    }
}
