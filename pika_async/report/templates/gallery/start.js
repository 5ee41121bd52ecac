// The first drawing of the page.

const problems = document.querySelector("#problems details");
problems.open = !narrow.matches; // a phone shows videos first, below one line of problems
addEventListener("beforeprint", () => { for (const part of document.querySelectorAll("main details")) part.open = true; });
drawHead();
drawProblems();
drawFilters();
drawSorts();
show();
