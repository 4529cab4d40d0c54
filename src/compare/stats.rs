//! Figures of figures.

/// The middle of some values, or the mean of the two in the middle; `None` if there are none.
pub fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() % 2 {
        _ if values.is_empty() => None,
        0 => Some(values[middle - 1].midpoint(values[middle])),
        _ => Some(values[middle]),
    }
}
