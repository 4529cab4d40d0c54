//! What is shown of a [`Record`](super::record::Record): in a terminal, to programs, in a browser, on slides.
//!
//! Invariant: a report can be made of every record, however much of it is missing; and what is missing is
//! left out or shown as missing, never as 0.

mod about;
pub mod chart;
pub mod csv;
pub mod difference;
pub mod figures;
pub mod findings;
mod html;
pub mod markdown;
pub mod picture;
mod plot;
pub mod regression;
mod repeat;
#[cfg(test)]
pub(crate) mod sample;
mod slo;
pub mod svg;
pub mod table;
mod topics;
mod value;

pub use html::html;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::difference::Difference;
    use crate::record::*;
    use forkd_load::Phase;

    /// Figures that are not expected, and some that are.
    fn figure() -> impl Strategy<Value = Option<f64>> {
        prop::sample::select(vec![
            None,
            Some(0.0),
            Some(-3.0),
            Some(1e-9),
            Some(7.5),
            Some(120.0),
            Some(1e18),
            Some(f64::NAN),
            Some(f64::INFINITY),
        ])
    }

    fn entry(name: String, figures: Vec<Option<f64>>, rounds: usize) -> Entry {
        let at = |k: usize, round: usize| figures[(k + round * 5) % figures.len()];
        // what clocks and histograms give is finite
        let number = |k: usize| at(k, 0).filter(|number| number.is_finite()).unwrap_or(0.0);
        let latency_us: Vec<_> = (0..4).map(|k| (number(k), number(k + 1))).collect();
        let all = 0..rounds;
        let hold = Measured::of(
            all.clone()
                .map(|r| Hold {
                    clients: at(0, r),
                    served: at(1, r),
                    processes: at(2, r),
                    threads: at(3, r),
                    pss_kib_per_conn: at(4, r),
                    ..Hold::default()
                })
                .collect(),
            Vec::new(),
        );
        let churn = |r| Churn {
            conn_per_s: at(5, r),
            p50_us: at(6, r),
            p99_us: at(7, r),
            cpu_us_per_conn: at(8, r),
            ..Churn::default()
        };
        let churn = Measured::of(all.clone().map(churn).collect(), latency_us.clone());
        let pingpong =
            all.clone().map(|r| PingPong { req_per_s: at(9, r), p99_us: at(1, r), ..PingPong::default() });
        let pingpong = Measured::of(pingpong.collect(), latency_us);
        let bulk = Measured::of(
            all.clone().map(|r| Bulk { mb_per_s: at(2, r), ..Bulk::default() }).collect(),
            vec![],
        );
        let lost =
            |r| Datagrams { datagrams_per_s: at(3, r), lost_percent: at(4, r), ..Datagrams::default() };
        let growth = |clients| Growth {
            clients,
            hold: hold.clone(),
            churn: churn.clone(),
            pingpong: pingpong.clone(),
        };
        let phases = [None, Some(Phase::Hold), Some(Phase::Churn)];
        let moment = |k: usize| Moment {
            t_s: number(k),
            phase: phases[k % 3],
            processes: number(k + 1) as u32,
            threads: number(k + 2) as u32,
            done: 0,
        };
        Entry {
            name,
            workers: at(0, 0).map(|workers| workers as u32),
            command: None,
            idle: Measured::of(
                all.clone().map(|r| Idle { processes: at(6, r), ..Idle::default() }).collect(),
                vec![],
            ),
            growth: [0, 1, 10, 10].map(growth).to_vec(),
            slo: Some(slo(&at)),
            timeline: (0..5).map(moment).collect(),
            datagrams: Measured::of(all.map(lost).collect(), vec![]),
            faults: [(String::from("reset"), 3)].into(),
            failure: at(9, 0).map(|_| "why".into()),
            hold,
            churn,
            pingpong,
            bulk,
        }
    }

    /// A search that has found what makes no sense.
    fn slo(at: &impl Fn(usize, usize) -> Option<f64>) -> Sought {
        let number = |k: usize| at(k, 1).filter(|number| number.is_finite());
        let trial =
            |k: usize| Trial { rate: number(k).unwrap_or(1.0), service_us: at(k + 1, 0), ..Trial::default() };
        let trials: Vec<Trial> = (0..3).map(trial).collect();
        Sought {
            rate: number(0),
            broken: number(1),
            end: number(2).map(|_| End::Found),
            service_us: number(3),
            at_once: number(4),
            workers_asked: number(5).map(|workers| workers as u32),
            checks: vec![Check { workers: 0, kept: true, trials: trials.clone() }],
            trials,
        }
    }

    fn record() -> impl Strategy<Value = Record> {
        let one = (".{0,30}", prop::collection::vec(figure(), 1..12), 0..4_usize);
        let entry = one.prop_map(|(name, figures, rounds)| entry(name, figures, rounds));
        (prop::collection::vec(entry, 0..11), any::<bool>(), any::<bool>()).prop_map(
            |(models, interrupted, seeks)| {
                let slo = if seeks { vec!["p99=1ms".parse().unwrap()] } else { Vec::new() };
                let settings = Settings { clients: vec![0, 1, 10], slo, ..Settings::default() };
                Record { models, interrupted, settings, ..super::sample::empty() }
            },
        )
    }

    fn is_well_formed(text: &str) -> bool {
        let options = roxmltree::ParsingOptions { allow_dtd: true, ..Default::default() };
        roxmltree::Document::parse_with_options(text, options).is_ok()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn every_record_can_be_shown(now in record(), before in record(), width in 0..200_usize) {
            let difference = Difference::between(&before, &now);
            let texts = [
                super::table::tables(&now, Some(width)),
                super::chart::charts(&now, Some(width)),
                super::csv::csv(&now),
                super::findings::findings(&now).concat(),
                difference.text(Some(width)),
            ];
            if let Ok(regression) = super::regression::Regression::between(&now, &now, 0.05) {
                prop_assert!(!regression.failed && regression.why().is_none(), "{regression:?}");
            }
            let markdown = super::markdown::markdown(&now);
            prop_assert!(markdown.contains("The same again"), "{markdown}");
            prop_assert!(super::table::live(&now, None, Some(width)).lines().count() > now.models.len());
            let page = super::html(&now, Some(&difference));
            prop_assert!(is_well_formed(&page), "{page}");
            for (name, text) in super::svg::files(&now) {
                prop_assert!(is_well_formed(&text), "{name}: {text}");
                prop_assert!(!text.contains("=\"NaN") && !text.contains("=\"inf"), "{name}: {text}");
            }
            for figures in [&texts[2], &texts[4]] {
                prop_assert!(!figures.contains(",NaN") && !figures.contains(",inf"), "{figures}");
            }
            let json = serde_json::to_string(&now).unwrap();
            let again: Record = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(serde_json::to_string(&again).unwrap(), json);
        }
    }
}
