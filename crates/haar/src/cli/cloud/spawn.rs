//! `haar cloud spawn`: servers that can be used, or the reason why not.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use haar_cloud::copy_list::CopyList;
use haar_cloud::flavor::{Flavor, Need, PriceList, Wanted};
use haar_cloud::server::here;
use haar_cloud::space::Cores;
use haar_cloud::{Error, Server, SpawnOrder};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::offer::{NeedWords, flavor_json};
use super::open::{Open, own_user};
use super::price::{self, PriceWords};
use crate::cli::failure::Failure;
use crate::cli::size::Size;
use crate::cli::{output, several};

/// Cores and MB of memory that a server has at least when nothing is said.
const USUAL: (u32, u64) = (1, 2048);
/// The most servers of one command.
const MOST: u16 = 1000;
/// Who logs in to an image whose name begins so.
const USERS: [(&str, &str); 9] = [
    ("debian", "debian"),
    ("ubuntu", "ubuntu"),
    ("jammy", "ubuntu"),
    ("noble", "ubuntu"),
    ("fedora", "fedora"),
    ("centos", "centos"),
    ("rocky", "rocky"),
    ("almalinux", "almalinux"),
    ("alpine", "alpine"),
];

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  haar cloud spawn --image debian-12
  haar cloud spawn --image debian-12 --cores 4 --memory 16g --count 10
  haar cloud spawn --image ubuntu --flavor m1.small --script setup.sh --files '~/.s3cfg,~/data.csv:/srv/data.csv'

Without --flavor it is the cheapest flavor with at least 1 core and 2 GiB of memory, unless --cores or --memory say
something else.")]
pub(crate) struct Words {
    /// The image: its id, its name, or how its name begins (the newest, where there are several)
    #[arg(long, value_name = "TEXT")]
    image: String,
    /// Who logs in; told by the image's name unless said, else root
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// The flavor, by id or exact name; the cheapest that will do unless said
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["cores", "memory", "flavor_pattern"])]
    flavor: Option<String>,
    #[command(flatten)]
    need: NeedWords,
    /// The least disk, such as 40g; image and flavor may make it more
    #[arg(long, value_name = "SIZE")]
    disk: Option<Size>,
    /// Servers, made at once
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=i64::from(MOST)))]
    count: u16,
    /// Give each an address that others can reach
    #[arg(long)]
    external: bool,
    /// Files to copy to each: LOCAL:REMOTE or one path for both, parted by commas; missing ones are skipped
    #[arg(long, value_name = "LIST", default_value = "")]
    files: String,
    /// A script to run on each once it is up
    #[arg(long, value_name = "FILE")]
    script: Option<PathBuf>,
    /// Do not wait until they can be logged in to; nothing is copied or run then
    #[arg(long, conflicts_with_all = ["files", "script"])]
    no_wait: bool,
    #[command(flatten)]
    prices: PriceWords,
}

/// What is to be put on each server.
struct Setup {
    wait: bool,
    files: CopyList,
    script: Vec<u8>,
}

pub(super) async fn run(open: &Open, words: &Words) -> Result<(), Failure> {
    let prices = words.prices.load()?;
    let setup = Arc::new(setup(words)?);
    // Without one there is nothing to make a server in, whatever the cloud offers.
    open.cloud.deployment().await?;
    for file in setup.files.missing(&here::home()) {
        open.say(&format!("{} is not here, and is left out", file.display()));
    }
    let image = open.unless_interrupted(open.cloud.image_by_prefix(&words.image)).await?;
    if image.among > 1 {
        open.say(&format!(
            "`{}` could mean {} images; taking the newest, {}",
            words.image, image.among, image.image.name
        ));
    }
    let flavor = open.unless_interrupted(flavor(open, words, prices.as_ref())).await?;
    let user = user(open, words, &image.image.name);
    let order = SpawnOrder {
        disk_gb: words.disk.map_or(0, |disk| disk.0.div_ceil(1024)),
        external: words.external,
        ..SpawnOrder::new(&words.image, &user, &flavor.id)
    };
    let made = make(open, words.count, &order, &setup).await;
    open.board.clear();
    print(open, &made, &flavor, prices.as_ref())?;
    outcome(open, made)
}

/// What became of all that were asked for.
#[derive(Default)]
struct Made {
    ready: Vec<Server>,
    /// They are there, and cannot be used.
    unready: Vec<(Server, Error)>,
    /// Why others are not there.
    unmade: Vec<Error>,
}

/// Makes all of them at once. When we are asked to end, those that are not there yet are not, or no longer.
async fn make(open: &Open, count: u16, order: &SpawnOrder, setup: &Arc<Setup>) -> Made {
    let mut tasks = JoinSet::new();
    let up: Arc<Mutex<Vec<Server>>> = Arc::default();
    for _ in 0..count {
        let (cloud, order, setup) = (open.cloud.clone(), order.clone(), Arc::clone(setup));
        let up = Arc::clone(&up);
        tasks.spawn(async move {
            let server = cloud.spawn(order, || {}).await.map_err(|error| (None, error))?;
            up.lock().unwrap_or_else(PoisonError::into_inner).push(server.clone());
            match make_ready(&server, &setup).await {
                Ok(()) => Ok(server),
                Err(error) => Err((Some(server), error)),
            }
        });
    }
    let (mut made, mut cut_off, mut is_interrupted) = (Made::default(), 0, false);
    loop {
        tokio::select! {
            biased;
            () = open.interrupt.token().cancelled(), if !is_interrupted => {
                is_interrupted = true;
                open.board.clear();
                open.say("interrupted; servers that are not up yet are removed again");
                tasks.abort_all();
            }
            ended = tasks.join_next() => match ended {
                None => break,
                Some(Ok(Ok(server))) => made.ready.push(server),
                Some(Ok(Err((Some(server), error)))) => made.unready.push((server, error)),
                Some(Ok(Err((None, error)))) => made.unmade.push(error),
                Some(Err(_)) => cut_off += 1,
            },
        }
    }
    let up = std::mem::take(&mut *up.lock().unwrap_or_else(PoisonError::into_inner));
    made.cut_off(up, cut_off);
    made
}

impl Made {
    /// Adds what was cut off: servers that are up and were not yet ready, and others that were not up.
    fn cut_off(&mut self, up: Vec<Server>, count: usize) {
        let is_told = |server: &Server| {
            let told = self.ready.iter().chain(self.unready.iter().map(|(server, _)| server));
            told.into_iter().any(|told| told.id() == server.id())
        };
        let waiting: Vec<Server> = up.into_iter().filter(|server| !is_told(server)).collect();
        let unmade = count.saturating_sub(waiting.len());
        let cancelled = |what: String| Error::Cancelled { what };
        self.unready
            .extend(waiting.into_iter().map(|server| (server, cancelled("it to be ready".to_owned()))));
        if unmade > 0 {
            self.unmade.push(cancelled(format!("{unmade} of them; what was made of these is removed")));
        }
    }
}

fn setup(words: &Words) -> Result<Setup, Failure> {
    let script = match &words.script {
        None => Vec::new(),
        Some(path) => std::fs::read(path)
            .map_err(|error| Failure::local(format!("cannot read the script {}", path.display()), error))?,
    };
    Ok(Setup { wait: !words.no_wait, files: CopyList::parse(&words.files)?, script })
}

/// The flavor that is named, or the cheapest that will do.
async fn flavor(open: &Open, words: &Words, prices: Option<&PriceList>) -> Result<Flavor, Failure> {
    if let Some(flavor) = &words.flavor {
        return Ok(open.cloud.flavor(flavor).await?);
    }
    let need = words.need.need(Need { cores: Cores::whole(USUAL.0), ram_mb: USUAL.1 })?;
    let pattern = words.need.pattern()?;
    let wanted = Wanted { need, pattern: pattern.as_ref(), prices };
    let flavor = open.cloud.cheapest_flavor(&wanted).await?;
    let price =
        prices.map(|prices| format!(", {} in an hour", price::shown(prices, &flavor))).unwrap_or_default();
    open.say(&format!(
        "taking flavor `{}` ({} cpu, {}, {} GB{price}), the cheapest with {need}",
        flavor.name,
        flavor.cores,
        output::mib(flavor.ram_mb),
        flavor.disk_gb
    ));
    Ok(flavor)
}

fn user(open: &Open, words: &Words, image: &str) -> String {
    if let Some(user) = &words.user {
        return user.clone();
    }
    if open.cloud.provider().is_this_machine() {
        return own_user();
    }
    let user = user_of(image);
    open.say(&format!("taking `{user}` as the user of image {image}"));
    user.to_owned()
}

fn user_of(image: &str) -> &'static str {
    let image = image.to_lowercase();
    USERS.iter().find(|(begin, _)| image.starts_with(begin)).map_or("root", |(_, user)| user)
}

async fn make_ready(server: &Server, setup: &Setup) -> haar_cloud::Result<()> {
    if !setup.wait {
        return Ok(());
    }
    server.wait_until_ready(&setup.files, &setup.script).await
}

fn print(open: &Open, made: &Made, flavor: &Flavor, prices: Option<&PriceList>) -> Result<(), Failure> {
    let servers = &made.ready;
    if open.is_json() {
        let items: Vec<Value> = servers.iter().map(|server| as_json(server, flavor, prices)).collect();
        // They cost as well, so that a program has to know them too.
        let unready = made.unready.iter().map(|(server, error)| {
            let mut item = as_json(server, flavor, prices);
            item["error"] = error.to_string().into();
            item
        });
        return output::json(&json!({"items": items, "unready": unready.collect::<Vec<_>>()}));
    }
    for server in servers {
        let address = server.address().map_or("no address".to_owned(), |address| address.to_string());
        output::out(&format!("  {}   {address}   {}@   {}\n", server.name(), server.user(), flavor.name));
    }
    if let Some(prices) = prices.filter(|_| !servers.is_empty()) {
        let sum = price::sum(prices, servers.iter().map(|_| Some(flavor)));
        output::out(&format!("  together {sum}\n"));
    }
    Ok(())
}

fn as_json(server: &Server, flavor: &Flavor, prices: Option<&PriceList>) -> Value {
    json!({
        "id": server.id(),
        "name": server.name(),
        "address": server.address().map(|address| address.to_string()),
        "user": server.user(),
        "host_keys": server.details().host_keys,
        "flavor": flavor_json(flavor, prices, false),
    })
}

/// What is to be said when not every server can be used.
fn outcome(open: &Open, made: Made) -> Result<(), Failure> {
    let done: Vec<String> = made.ready.iter().map(|server| server.name().to_owned()).collect();
    let unready = made.unready.into_iter().map(|(server, error)| {
        let destroy = open.hint(&format!("destroy {}", server.id()));
        let advice = vec![format!("it is there, and costs; look at it, or destroy it:  {destroy}")];
        (server.name().to_owned(), Failure::Advised(Box::new(error.into()), advice))
    });
    let mut failed: Vec<(String, Failure)> = unready.collect();
    for error in made.unmade {
        failed.push((format!("server {}", done.len() + failed.len() + 1), error.into()));
    }
    several::outcome(done, failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_images_name_tells_who_logs_in() {
        for (image, user) in [
            ("debian-12-generic", "debian"),
            ("Ubuntu-24.04", "ubuntu"),
            ("tiny", "root"),
            ("my-debian", "root"),
        ] {
            assert_eq!(user_of(image), user, "{image}");
        }
    }
}
