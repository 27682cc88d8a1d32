"""The few calls of huggingface_hub that a download needs, with quick failures and plain sentences."""

from __future__ import annotations

import re
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import constants, errors

from indigo.engines.download import DownloadFailed

CONNECT_SECONDS = 3.0
RESUMES = 5
"""How often a transfer that was cut off goes on where it stopped."""


library: Any = huggingface_hub  # whose types are partly unknown
TRANSPORT = (
    errors.HTTPError,  # pyright: ignore[reportPrivateImportUsage] - for the reason below
    errors.OfflineModeIsEnabled,
)
"""The HTTP client differs between releases of the library; this is the root of that client's errors."""


class Hub:
    def __init__(self, endpoint: str | None, token: str) -> None:
        self._endpoint = (endpoint or constants.ENDPOINT).rstrip("/")
        self._token = token or None

    def files(self, repo: str) -> list[str]:
        with self._sentences(repo):
            api = library.HfApi(self._endpoint, token=self._token)
            found = api.model_info(repo, timeout=CONNECT_SECONDS)
        return [file.rfilename for file in found.siblings or ()]

    def checksum(self, repo: str, file: str) -> str | None:
        """The SHA-256 the hub has for the file; None for a small one that it keeps no checksum of."""
        url = library.hf_hub_url(repo, file, endpoint=self._endpoint)
        with self._sentences(repo, file):
            found = library.get_hf_file_metadata(
                url, token=self._token, timeout=CONNECT_SECONDS, endpoint=self._endpoint
            )
        return found.etag if found.etag and re.fullmatch(r"[0-9a-f]{64}", found.etag) else None

    def download(self, repo: str, file: str, folder: Path) -> Path:
        """Fetches the file; what an earlier call left incomplete is gone on with."""
        with self._sentences(repo, file):
            for _ in range(RESUMES):
                try:
                    return self._download(repo, file, folder)
                except TRANSPORT as error:
                    if isinstance(error, errors.HfHubHTTPError):
                        raise  # an answer, which will be the same again
            return self._download(repo, file, folder)

    def _download(self, repo: str, file: str, folder: Path) -> Path:
        return Path(
            library.hf_hub_download(
                repo,
                file,
                local_dir=folder,
                token=self._token,
                endpoint=self._endpoint,
                etag_timeout=CONNECT_SECONDS,
            )
        )

    @contextmanager
    def _sentences(self, repo: str, file: str = "") -> Generator[None]:
        what = f"{repo}{':' if file else ''}{file}"
        try:
            yield
        except errors.GatedRepoError:
            raise DownloadFailed(
                f"{repo} is gated: accept its licence on {self._endpoint}/{repo} and set HF_TOKEN."
            ) from None
        except errors.EntryNotFoundError:
            raise DownloadFailed(f"{repo} has no file {file}; see {self._endpoint}/{repo}/tree/main.") from None
        except errors.RepositoryNotFoundError:
            raise DownloadFailed(
                f"{repo} does not exist on {self._endpoint}, or is private: check the name, and HF_TOKEN."
            ) from None
        except errors.HfHubHTTPError as error:
            status = error.response.status_code
            raise DownloadFailed(f"{self._endpoint} answered {status} for {what}.", unreachable=status >= 500) from None
        except (*TRANSPORT, errors.LocalEntryNotFoundError) as error:
            raise DownloadFailed(
                f"{self._endpoint} cannot be reached ({type(error).__name__}), so {what} was not downloaded.",
                unreachable=True,
            ) from None
        except OSError as error:
            raise DownloadFailed(f"{what} was not downloaded: {error}.") from None
