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

    /// How results are printed.
    pub fn output(&self) -> Output {
        self.output
    }

    /// Prints one of many results: `text` for a person, `value` as JSON in one line.
    ///
    /// # Errors
    /// Nobody reads standard output any more.
    pub fn one_of_many(&self, value: &impl Serialize, text: &str) -> std::io::Result<()> {
        let json;
        let line = match self.output {
            Output::Text => text,
            Output::Json => {
                json = serde_json::to_string(value)?;
                &json
            }
        };
        let mut out = std::io::stdout().lock();
        writeln!(out, "{line}")?;
        out.flush()
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

/// The terminal's width in columns, if standard output is one.
pub fn width() -> Option<usize> {
    console::Term::stdout()
        .size_checked()
        .filter(|_| console::user_attended())
        .map(|(_, columns)| columns.into())
}

/// A terminal on which the same text is drawn again and again, in place. When it is dropped, the cursor is shown again.
#[derive(Debug)]
pub struct Screen {
    terminal: console::Term,
}

impl Screen {
    /// Clears the terminal and hides its cursor. Nothing if standard output is no terminal.
    pub fn open() -> Option<Screen> {
        if !console::user_attended() {
            return None;
        }
        let terminal = console::Term::buffered_stdout();
        let _ = terminal.hide_cursor();
        let _ = terminal.clear_screen();
        Some(Screen { terminal })
    }

    /// Rows and columns, as they are now.
    pub fn size(&self) -> (usize, usize) {
        let (rows, columns) = self.terminal.size();
        (rows.into(), columns.into())
    }

    /// Draws over what was drawn before, in one write: lines are replaced one by one and never all gone, so nothing flickers. What
    /// does not fit is counted in the last row.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn draw(&self, text: &str) -> std::io::Result<()> {
        let (rows, _) = self.size();
        self.terminal.write_str("\x1b[H")?;
        for (index, line) in fitted(text, rows).iter().enumerate() {
            let line_end = if index == 0 { "" } else { "\r\n" };
            self.terminal.write_str(&format!("{line_end}{line}\x1b[K"))?;
        }
        self.terminal.write_str("\x1b[J")?;
        self.terminal.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.terminal.write_str("\r\n");
        let _ = self.terminal.show_cursor();
        let _ = self.terminal.flush();
    }
}

/// The lines that fit into so many rows; the last one says how many do not.
fn fitted(text: &str, rows: usize) -> Vec<String> {
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    if lines.len() <= rows || rows == 0 {
        return lines;
    }
    let more = lines.len() - (rows - 1);
    let mut fitting = lines;
    fitting.truncate(rows - 1);
    fitting.push(format!("... {more} more lines"));
    fitting
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
    fn what_does_not_fit_on_a_screen_is_counted() {
        assert_eq!(fitted("a\nb", 2), ["a", "b"]);
        assert_eq!(fitted("a\nb\nc", 2), ["a", "... 2 more lines"]);
    }

    #[test]
    fn a_table_aligns_its_values() {
        assert_eq!(
            table(&[("lost", "0".into()), ("duplicated", "1".into())]),
            "  lost        0\n  duplicated  1"
        );
    }
}
