"""The Python API: what `import ubhpd` gives. The command line does its work with the same functions.

Tables come in and go out as pandas data frames. An error that a user can mend is a `UbhpdError`, whose message says
what was found, where, and what to do; nothing here ends the process. A long job shows a progress bar in a terminal and
in a Jupyter notebook, resumes after an interruption, and writes files whole or not at all.

Angles are degrees in the convention of docs/conventions.md: yaw is positive when the nose points to the left of the
image, pitch when it points up, roll when the head leans to the right of the image.
"""
