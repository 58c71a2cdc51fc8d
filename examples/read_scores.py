"""Read the table that `handful score` writes, with Polars and with DuckDB, and plot how the scores drift by day.

Each `# %%` begins a cell for an editor that runs cells; `python read_scores.py`, where the folder `scores` lies, runs
them all and writes drift.png. Needs polars, duckdb and matplotlib, and not Handful.
"""

# %% The table: a row for each picture, in many Parquet files of the same columns
import duckdb
import matplotlib.pyplot as plt
import polars as pl

parts = "scores/parts/*/*.parquet"  # or scores/compacted/*.parquet
scores = pl.scan_parquet(parts)  # reads the columns that are asked for, and no file before
print(scores.group_by("product", "verdict").len("pictures").sort("product", "verdict").collect())

# %% The pictures that a person should see first: the strongest defects, each with its strongest region
strongest = scores.filter(verdict="DEFECT").sort("score", descending=True).head(10)
print(strongest.select("score", "path", region=pl.col("regions").list.first()).collect())

# %% The pictures without a score, and why: `error` is READ, DECODE, SCORE, CRASH or TIMEOUT
errors = f"""
    SELECT error, count(*) AS pictures, any_value(reason) AS example FROM '{parts}'
    WHERE error IS NOT NULL GROUP BY error ORDER BY error
"""
for error, pictures, example in duckdb.execute(errors).fetchall():
    print(f"Pictures with {error}: {pictures}, for example: {example}")

# %% The places where defects lie: regions by tenth of the picture's width and height, most frequent first
places = f"""
    SELECT floor(10 * region.peak_x / width) AS across, floor(10 * region.peak_y / height) AS down, count(*) AS regions
    FROM (SELECT unnest(regions) AS region, width, height FROM '{parts}')
    GROUP BY ALL ORDER BY regions DESC, across, down LIMIT 10
"""
print(duckdb.sql(places))

# %% The scores of each day: the day stands in the path, as in archive/2026-03-01/001.png; else the version tells it:
# the time of the last change in ns since 1970. Where a run has many products, choose one: .filter(product="pill")
in_path = pl.col("path").str.extract(r"(\d{4}-\d{2}-\d{2})").str.to_date()
of_file = pl.from_epoch(pl.col("version").cast(pl.Int64, strict=False), time_unit="ns").dt.date()
days = (
    scores.filter(pl.col("score").is_not_null())
    .group_by(day=pl.coalesce(in_path, of_file))
    .agg(
        pictures=pl.len(),
        low=pl.quantile("score", 0.1),
        median=pl.median("score"),
        high=pl.quantile("score", 0.9),
        defects=(pl.col("verdict") == "DEFECT").mean(),
    )
    .sort("day")
    .collect()
)
print(days)

# %% The drift: a median that moves towards 1 over days tells of light, lens or camera rather than of defects
figure, (above, below) = plt.subplots(2, sharex=True, height_ratios=(3, 1), figsize=(8, 5), layout="constrained")
above.fill_between(days["day"], days["low"], days["high"], alpha=0.3, linewidth=0, label="8 of 10 pictures")
above.plot(days["day"], days["median"], marker="o", label="median")
above.axhline(1, color="black", linestyle="--", label="threshold")
above.set_ylabel("score")
above.legend(loc="upper left")
below.bar(days["day"], 100 * days["defects"])
below.set_ylabel("DEFECT, %")
below.set_xticks(days["day"].to_list()[:: 1 + len(days) // 10])  # days, and no hours between them
figure.autofmt_xdate()
figure.savefig("drift.png", dpi=150)
