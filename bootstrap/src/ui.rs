//! What a person sees: the story on standard error as it happens, data on standard output. `NO_COLOR` and a pipe are
//! respected (by the `console` crate). Nothing else in this crate prints.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::io::Write;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use console::style;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Output {
    /// For a person.
    #[default]
    Text,
    /// One JSON value on standard output.
    Json,
}

/// The voice of one command: steps with their time since the start, progress bars, and the result.
#[derive(Debug)]
pub struct Ui {
    started: Instant,
    output: Output,
    bars: MultiProgress,
    groups: Mutex<Vec<(String, ProgressBar)>>,
    last_plain: Mutex<Option<(Instant, String)>>,
    silent: bool,
}

/// How often progress is repeated where there is no terminal.
const PLAIN_PROGRESS_EVERY: Duration = Duration::from_secs(5);

impl Ui {
    /// A voice that prints results as `output` says.
    pub fn new(output: Output) -> Self {
        Ui {
            started: Instant::now(),
            output,
            bars: MultiProgress::with_draw_target(ProgressDrawTarget::stderr()),
            groups: Mutex::new(Vec::new()),
            last_plain: Mutex::new(None),
            silent: false,
        }
    }

    /// A voice that says nothing while work goes on: for what runs many times within one command.
    pub fn silent() -> Self {
        Ui {
            silent: true,
            ..Ui::new(Output::Text)
        }
    }

    /// Time since the command began.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    fn line(&self, text: &str) {
        if self.silent {
            return;
        }
        // Bars are redrawn below the line.
        self.bars.suspend(|| eprintln!("{text}"));
    }

    /// One step of the story.
    pub fn step(&self, text: impl AsRef<str>) {
        let seconds = self.elapsed().as_secs_f64();
        self.line(&format!(
            "{} {}",
            style(format!("{seconds:6.1}s")).dim(),
            text.as_ref()
        ));
    }

    /// A step that ended well.
    pub fn done(&self, text: impl AsRef<str>) {
        self.step(format!("{} {}", style("ok").green().bold(), text.as_ref()));
    }

    /// Something the reader should know.
    pub fn warn(&self, text: impl AsRef<str>) {
        self.line(&format!(
            "{} {}",
            style("warning:").yellow().bold(),
            text.as_ref()
        ));
    }

    /// Draws one bar per group; where there is no terminal, a line now and then.
    pub fn progress(&self, groups: &[(String, usize, usize)], note: &str) {
        if self.bars.is_hidden() {
            self.plain_progress(groups, note);
            return;
        }
        let Ok(mut bars) = self.groups.lock() else { return };
        for (name, ready, total) in groups {
            let bar = match bars.iter().find(|(known, _)| known == name) {
                Some((_, bar)) => bar.clone(),
                None => {
                    let bar = self.bars.add(ProgressBar::new(0));
                    if let Ok(template) =
                        ProgressStyle::with_template("        {prefix:8} {bar:28} {pos:>3}/{len} {msg}")
                    {
                        bar.set_style(template.progress_chars("=> "));
                    }
                    bar.set_prefix(name.clone());
                    bars.push((name.clone(), bar.clone()));
                    bar
                }
            };
            bar.set_length(*total as u64);
            bar.set_position(*ready as u64);
        }
        if let Some((_, last)) = bars.last() {
            last.set_message(note.to_owned());
        }
    }

    fn plain_progress(&self, groups: &[(String, usize, usize)], note: &str) {
        let ready: usize = groups.iter().map(|(_, ready, _)| ready).sum();
        let total: usize = groups.iter().map(|(_, _, total)| total).sum();
        let text = format!(
            "{ready} of {total} resources done{}{note}",
            if note.is_empty() { "" } else { ", " }
        );
        let Ok(mut last) = self.last_plain.lock() else {
            return;
        };
        let due = last
            .as_ref()
            .is_none_or(|(at, said)| at.elapsed() > PLAIN_PROGRESS_EVERY && *said != text);
        if due {
            *last = Some((Instant::now(), text.clone()));
            drop(last);
            self.step(text);
        }
    }

    /// Removes the bars.
    pub fn clear_progress(&self) {
        if let Ok(mut bars) = self.groups.lock() {
            for (_, bar) in bars.drain(..) {
                bar.finish_and_clear();
            }
        }
        if let Ok(mut last) = self.last_plain.lock() {
            *last = None;
        }
    }

    /// Prints the result: `text` for a person, `value` as JSON.
    pub fn result(&self, value: &impl Serialize, text: impl AsRef<str>) {
        self.clear_progress();
        match self.output {
            Output::Text => {
                let text = text.as_ref();
                if !text.is_empty() {
                    say(text);
                }
            }
            Output::Json => match serde_json::to_string_pretty(value) {
                Ok(json) => say(&json),
                Err(error) => eprintln!("error: the result cannot be written as JSON: {error}"),
            },
        }
    }
}

/// Prints data. A reader that closed the pipe has seen enough: that is no error.
fn say(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// Prints an error the way every command does: `error:`, what is wrong with its causes, and a help line.
pub fn print_error(message: &str, help: Option<&str>) {
    eprintln!("{} {message}", style("error:").red().bold().for_stderr());
    if let Some(help) = help {
        eprintln!(" {} {help}", style("help:").cyan().bold().for_stderr());
    }
}

/// Two columns, the first padded to the widest.
pub fn table(rows: &[(&str, String)]) -> String {
    let width = rows
        .iter()
        .map(|(name, _)| name.chars().count())
        .max()
        .unwrap_or(0);
    rows.iter()
        .map(|(name, value)| format!("  {name:width$}  {value}"))
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_aligns_its_values() {
        assert_eq!(
            table(&[("lost", "0".into()), ("duplicated", "1".into())]),
            "  lost        0\n  duplicated  1"
        );
    }
}
