//! What was measured, for `ci/bench` to put into a table: a line of JSON each.

use std::time::Duration;

use serde_json::json;

/// Prints a figure.
pub fn print(figure: &str, value: f64, unit: &str) {
    println!("{}", json!({ "figure": figure, "value": value, "unit": unit }));
}

/// The median, or the p-th part of the way from the least to the greatest.
pub fn quantile(values: &mut [f64], part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = (part * (values.len() - 1) as f64).round() as usize;
    values[at]
}

pub fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// The time since the machine was started that this process has used on all its threads, and that everybody has.
pub struct CpuTime {
    pub own: f64,
    pub all: f64,
}

impl CpuTime {
    /// Also counts as our own what the servers have used that are measured, by the names of their programs.
    pub fn now(servers: &[&str]) -> Self {
        let ticks = |text: &str, from: usize| -> f64 {
            let rest = &text[text.rfind(')').map_or(0, |at| at + 2)..];
            rest.split_whitespace().skip(from).take(2).filter_map(|number| number.parse::<f64>().ok()).sum()
        };
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let mut own = ticks(&read("/proc/self/stat"), 11);
        if !servers.is_empty() {
            for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
                let stat = read(&format!("{}/stat", process.path().display()));
                if servers.iter().any(|name| stat.contains(&format!("({name}"))) {
                    own += ticks(&stat, 11);
                }
            }
        }
        let all = read("/proc/stat");
        let all = all.lines().next().unwrap_or_default().split_whitespace().skip(1);
        let all: Vec<f64> = all.filter_map(|number| number.parse().ok()).collect();
        // Without idle (3) and waiting for disks (4).
        let all = all.iter().enumerate().filter(|(index, _)| !matches!(index, 3 | 4)).map(|(_, ticks)| ticks).sum();
        Self { own, all }
    }

    /// Seconds of this process and of others since.
    pub fn since(&self, servers: &[&str]) -> (f64, f64) {
        let now = Self::now(servers);
        let own = now.own - self.own;
        (own / 100.0, (now.all - self.all - own).max(0.0) / 100.0)
    }
}

/// Bytes of memory that this process has now.
pub fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kilobytes| kilobytes.parse::<u64>().ok()).unwrap_or_default() * 1024
}
