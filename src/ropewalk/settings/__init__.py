"""What each command is asked to do: torch-free dataclasses, every value checked before anything is loaded.

command.py  what makes a settings class a command
values.py   what a field may hold: its type and range, checked by one function; written_numbers.py, 32k and 1.5h
extend.py search.py train.py measure.py downstream.py pages.py plan.py chat.py doctor.py export.py  the commands' settings
options.py scaling.py windows.py  options that several of them share
load.py     load_model's, which is no command
budget.py   constants that training and the planner share
"""
