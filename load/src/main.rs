//! The program that `understudy bench` starts: a plan in, what it came to out, both in JSON.

use std::process::ExitCode;

use load::{LoadError, Plan};

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let (Some(plan), None) = (words.next(), words.next()) else {
        return failed("give it one plan; `understudy bench` does");
    };
    match run(&plan) {
        Ok(done) => {
            // What it came to is what this program prints.
            #[allow(clippy::print_stdout)]
            {
                println!("{done}");
            }
            ExitCode::SUCCESS
        }
        Err(error) => failed(&continuity::error::chain(&error)),
    }
}

fn run(plan: &str) -> Result<String, LoadError> {
    let plan: Plan = serde_json::from_str(plan)?;
    Ok(serde_json::to_string(&load::run(&plan)?)?)
}

fn failed(why: &str) -> ExitCode {
    #[allow(clippy::print_stderr)]
    {
        eprintln!("load: {why}");
    }
    ExitCode::FAILURE
}
