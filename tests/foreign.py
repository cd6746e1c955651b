"""Addresses of other hosts in a page: none of ours needs the network."""

import re


def foreign(page: str) -> list[str]:
    """Return what a browser could take for the address of another host.

    >>> foreign('<a href="../x">a // b</a> <img src="//cdn.example/x.png"> url(https://fonts.example) spark://master')
    ['//cdn.example', 'https://fonts.example']
    """
    return re.findall(r"(?:\b(?:https?|wss?|ftp):|(?<!:))//[\w.\[@-]+", page)
