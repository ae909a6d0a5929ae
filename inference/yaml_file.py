"""A YAML file for people: every key once, ${NAME} from the environment, mistakes in one sentence.

This module does not know what the file configures.
"""

import os
import re
from pathlib import Path
from typing import Any

import yaml

from inference.errors import ConfigError


def read_yaml(path: Path) -> Any:
    """The plain data in `path`; ${NAME} inside its strings is replaced from the environment.

    Raises ConfigError: the file cannot be read, is not YAML, has a key twice, or refers to an
    environment variable that is not set.
    """
    try:
        return _expanded(_UniqueKeyLoader(path.read_text("utf-8")).get_single_data())
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{path}, line {line}: {error.problem}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {str(error).splitlines()[0]}") from error
    except ValueError as error:
        raise ConfigError(f"{path} holds a number or a date that cannot be: {error}") from error
    except RecursionError:
        raise ConfigError(f"{path} is nested too deeply, or refers to itself") from None
    except KeyError as error:
        raise ConfigError(
            f"{path}: the environment variable {error.args[0]} is not set; "
            f"set it, or write its value instead of ${{{error.args[0]}}}"
        ) from error


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML lets a later key replace an earlier one; here that is a mistake."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if str(key.value) in seen:
                problem = f"the key {key.value} is there twice"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            seen.add(str(key.value))
        return node


def _expanded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _expanded(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_expanded(inner) for inner in value]
    if isinstance(value, str):
        return re.sub(r"\$\{(\w+)\}", lambda reference: os.environ[reference[1]], value)
    return value
