//! `haar cloud quota`, `flavors` and `images`: what can be had.

use haar_cloud::flavor::{Flavor, Need, Pattern, PriceList, Wanted};
use haar_cloud::image::Image;
use haar_cloud::quota::Quota;
use haar_cloud::space::Cores;
use serde_json::{Value, json};

use super::open::Open;
use super::price::{self, PriceWords};
use crate::cli::failure::Failure;
use crate::cli::output;
use crate::cli::size::Size;

/// What a server must at least have.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct NeedWords {
    /// The least cores; 0.5 is half of one
    #[arg(long, value_name = "NUMBER")]
    pub(crate) cores: Option<f64>,
    /// The least memory, such as 2g
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory: Option<Size>,
    /// A regular expression that the flavor's name must match somewhere
    #[arg(long, value_name = "REGEX")]
    pub(crate) flavor_pattern: Option<String>,
}

impl NeedWords {
    pub(super) fn need(&self, usual: Need) -> Result<Need, Failure> {
        let cores = self.cores.map(Cores::from_f64).transpose()?;
        Ok(Need {
            cores: cores.unwrap_or(usual.cores),
            ram_mb: self.memory.map_or(usual.ram_mb, |memory| memory.0),
        })
    }

    pub(super) fn pattern(&self) -> Result<Option<Pattern>, Failure> {
        Ok(self.flavor_pattern.as_deref().map(Pattern::parse).transpose()?)
    }
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "The cheapest that would be taken for --cores, --memory and --flavor-pattern is marked with *.

Examples:
  haar cloud flavors
  haar cloud flavors --cores 2 --memory 8g --prices prices.json"
)]
pub(crate) struct FlavorWords {
    #[command(flatten)]
    need: NeedWords,
    #[command(flatten)]
    prices: PriceWords,
}

pub(super) async fn flavors(open: &Open, words: &FlavorWords) -> Result<(), Failure> {
    let (prices, pattern) = (words.prices.load()?, words.need.pattern()?);
    let need = words.need.need(Need { cores: Cores::ZERO, ram_mb: 0 })?;
    let wanted = Wanted { need, pattern: pattern.as_ref(), prices: prices.as_ref() };
    let mut flavors = open.cloud.flavors().await?;
    let cheapest = wanted.cheapest(&flavors).ok().map(|flavor| flavor.id.clone());
    flavors.sort_by(|a, b| {
        (a.cores, a.ram_mb, a.disk_gb, &a.name).cmp(&(b.cores, b.ram_mb, b.disk_gb, &b.name))
    });
    let is_cheapest = |flavor: &Flavor| cheapest.as_ref() == Some(&flavor.id);
    if open.is_json() {
        let items = flavors.iter().map(|flavor| flavor_json(flavor, prices.as_ref(), is_cheapest(flavor)));
        return output::json(&json!({"items": items.collect::<Vec<_>>()}));
    }
    if flavors.is_empty() {
        output::out("  no flavors\n");
        return Ok(());
    }
    let row = |flavor: &Flavor| {
        let mut row = vec![
            format!("{}{}", flavor.name, if is_cheapest(flavor) { " *" } else { "" }),
            flavor.cores.to_string(),
            output::mib(flavor.ram_mb),
            format!("{} GB", flavor.disk_gb),
        ];
        row.extend(prices.as_ref().map(|prices| price::shown(prices, flavor)));
        row.push(flavor.id.clone());
        row
    };
    let mut columns = vec!["NAME", "CORES", "MEMORY", "DISK"];
    columns.extend(prices.as_ref().map(|_| "PER HOUR"));
    columns.push("ID");
    output::out(&output::table(&columns, flavors.iter().map(row).collect(), output::colours()));
    Ok(())
}

/// A flavor for a program.
pub(super) fn flavor_json(flavor: &Flavor, prices: Option<&PriceList>, is_cheapest: bool) -> Value {
    json!({
        "id": flavor.id,
        "name": flavor.name,
        "cores": flavor.cores,
        "ram_mb": flavor.ram_mb,
        "disk_gb": flavor.disk_gb,
        "per_hour": prices.and_then(|prices| prices.price(flavor)),
        "currency": prices.map(|prices| prices.currency.clone()),
        "cheapest": is_cheapest,
    })
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  haar cloud images
  haar cloud images debian-12     which one this text would mean, if there are several")]
pub(crate) struct ImageWords {
    /// Only what this text means: an id, a name, or how one of them begins
    text: Option<String>,
}

pub(super) async fn images(open: &Open, words: &ImageWords) -> Result<(), Failure> {
    let mut images = open.cloud.images().await?;
    if let Some(text) = &words.text {
        let chosen = open.cloud.image_by_prefix(text).await?;
        if chosen.among > 1 {
            open.say(&format!("`{text}` could mean {} images; the newest is taken", chosen.among));
        }
        images.retain(|image| image.id == chosen.image.id);
    }
    images.sort_by(|a, b| (&a.name, a.created_at, &a.id).cmp(&(&b.name, b.created_at, &b.id)));
    if open.is_json() {
        return output::json(&json!({ "items": images }));
    }
    if images.is_empty() {
        output::out("  no images\n");
        return Ok(());
    }
    let row = |image: &Image| {
        let made = image.created_at.map_or("-".to_owned(), |at| at.strftime("%Y-%m-%d %H:%M").to_string());
        let disk = if image.min_disk_gb == 0 { "-".to_owned() } else { format!("{} GB", image.min_disk_gb) };
        let memory = if image.min_ram_mb == 0 { "-".to_owned() } else { output::mib(image.min_ram_mb) };
        vec![image.name.clone(), made, disk, memory, image.id.clone()]
    };
    let columns = ["NAME", "MADE", "LEAST DISK", "LEAST MEMORY", "ID"];
    output::out(&output::table(&columns, images.iter().map(row).collect(), output::colours()));
    Ok(())
}

pub(super) async fn quota(open: &Open) -> Result<(), Failure> {
    let quota = open.cloud.quota().await?;
    if open.is_json() {
        return output::json(&quota_json(&quota));
    }
    let amount = |used: u64, max: Option<u64>, shown: &dyn Fn(u64) -> String| match max {
        Some(max) => {
            let left = max.saturating_sub(used);
            vec![output::bar(used, max), shown(used), shown(max), shown(left)]
        }
        None => vec![String::new(), shown(used), "no limit".to_owned(), "-".to_owned()],
    };
    let plain = |number: u64| number.to_string();
    let gigabytes = |number: u64| format!("{number} GB");
    let rows = [
        ("servers", amount(quota.used.instances, quota.max_instances, &plain)),
        ("cores", amount(quota.used.cores, quota.max_cores, &plain)),
        ("memory", amount(quota.used.ram_mb, quota.max_ram_mb, &output::mib)),
        ("volumes", amount(quota.used.volume_gb, quota.max_volume_gb, &gigabytes)),
    ];
    let rows = rows.into_iter().map(|(what, amounts)| [vec![what.to_owned()], amounts].concat()).collect();
    output::out(&output::table(&["WHAT", "", "USED", "LIMIT", "LEFT"], rows, output::colours()));
    if quota.used.unknown_flavors > 0 {
        let count = output::counted(quota.used.unknown_flavors, "server");
        output::out(&format!(
            "  {count} more, of flavors that are gone, take cores and memory that are not counted\n"
        ));
    }
    Ok(())
}

fn quota_json(quota: &Quota) -> Value {
    json!({
        "max": {
            "instances": quota.max_instances,
            "cores": quota.max_cores,
            "ram_mb": quota.max_ram_mb,
            "volume_gb": quota.max_volume_gb,
        },
        "used": {
            "instances": quota.used.instances,
            "cores": quota.used.cores,
            "ram_mb": quota.used.ram_mb,
            "volume_gb": quota.used.volume_gb,
            "unknown_flavors": quota.used.unknown_flavors,
        },
    })
}
