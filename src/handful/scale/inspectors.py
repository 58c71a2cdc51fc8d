"""The saved inspectors that a plan needs, by product."""

import hashlib
from collections.abc import Iterator

import pyarrow as pa

from handful.errors import InputError, InspectorError
from handful.graphs.names import SCORING_ENTRY
from handful.saved import archive
from handful.scale.places import Place, reading, said
from handful.scale.run import Run


class Inspectors:
    """Finds the inspector of each product, and copies the inspectors in use to the run.

    Args:
        single: the address of the inspector of a single product; None for many products.
        folder: the address of the folder of PRODUCT.handful; None for a single product.

    Attributes:
        used: the sha256 of the inspector of each product that has a picture.
        addresses: of the inspectors that a manifest names, by product.
    """

    def __init__(self, single: str | None, folder: str | None) -> None:
        self._single, self._folder = single, folder
        self._digests: dict[str, str] = {}  # sha256 by address
        self._places: dict[str, Place] = {}  # by sha256
        self._named: dict[str, str] = {}  # digest of an inspector with its calibration, by sha256
        self.used: dict[str, str] = {}
        self.addresses: dict[str, str] = {}

    def by_inspector(self, table: pa.Table) -> Iterator[tuple[str, pa.Table]]:
        """Split a batch of pictures by inspector, and add the columns of the plan.

        Raises:
            InputError: if a product is missing, or has two inspectors.
            InspectorError: see `sha256`.
        """
        if self._single is not None:
            product = Place.at(self._single).name.removesuffix(".handful")
            sha256 = self.sha256(product)
            self.used[product] = sha256
            yield sha256, self._with(table, product, sha256)
            return
        keys = [(one["product"], one["inspector"]) for one in table.select(["product", "inspector"]).to_pylist()]
        rows: dict[tuple[str, str | None], list[int]] = {}
        for number, key in enumerate(keys):
            rows.setdefault(key, []).append(number)
        for (product, address), numbers in rows.items():
            if product is None:
                raise InputError("Every row of a manifest must have a product, got a row without; add it.")
            sha256 = self.sha256(product, address)
            if self.used.setdefault(product, sha256) != sha256:
                raise InputError(
                    f"All pictures of a product must have one inspector, got two for {product}, the second at "
                    f"{address or self._folder}; name them as two products."
                )
            if address is not None:
                self.addresses[product] = address
            yield sha256, self._with(table.take(numbers), product, sha256)

    def sha256(self, product: str, address: str | None = None) -> str:
        """The digest of the file of a product's inspector.

        Raises:
            InspectorError: if the file is missing or damaged, or holds no graph of its method.
        """
        if address is not None or self._single is not None:
            place = Place.at(address or str(self._single))
        else:
            place = Place.at(str(self._folder)) / f"{product}.handful"
        if place.uri not in self._digests:
            content = self._content(place, product)
            found, _, entries = archive.read(content, name=place.uri)
            if SCORING_ENTRY not in entries:
                raise InspectorError(
                    f"{place.uri} must hold a graph of its method to score many pictures, got none; fit it with a "
                    f"method and an engine that have a graph, see docs/export.md."
                )
            digest = hashlib.sha256(content).hexdigest()
            self._digests[place.uri], self._places[digest], self._named[digest] = digest, place, found["digest"]
        return self._digests[place.uri]

    def _with(self, table: pa.Table, product: str, sha256: str) -> pa.Table:
        """The columns of the plan but for shard and row, of pictures of one product."""
        columns = {name: table[name] for name in ("path", "bytes", "version", "offset")}
        for name, value in (("product", product), ("inspector", self._named[sha256]), ("inspector_sha256", sha256)):
            columns[name] = pa.repeat(pa.scalar(value), len(table))
        return pa.table(columns)

    def copy(self, run: Run) -> None:
        """Copy the inspectors in use to the run; they are read again, so that memory holds one at a time.

        Raises:
            InspectorError: if an inspector has changed or gone since it was read first.
            OutputError: if a copy cannot be written.
        """
        for product, sha256 in self.used.items():
            copied = run.inspector(sha256)
            with reading(copied, "an inspector"):
                there = copied.is_file()
            if there:
                continue
            place = self._places[sha256]
            content = self._content(place, product)
            if hashlib.sha256(content).hexdigest() != sha256:
                raise InspectorError(
                    f"The inspector of {product} must stay as it is while a run is planned, got another file at "
                    f"{place.uri}; give the same command again."
                )
            copied.put(content)

    def _content(self, place: Place, product: str) -> bytes:
        """The bytes of the file of an inspector."""
        try:
            return place.read()
        except (OSError, pa.ArrowException) as error:
            raise InspectorError(
                f"The inspector of {product} must exist and be readable, got {place.uri}: {said(error)}; fit it, or "
                f"leave its pictures out."
            ) from error
